"""What every data set must be, checked on one that is made twice."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from isnet_bench import data
from isnet_bench.config import fill
from isnet_bench.data import contract
from isnet_bench.data.base import DataSet, has_mask
from isnet_bench.io.checks import problem_of, require, require_settings


@dataclasses.dataclass(frozen=True)
class Subject:
    """A data set, and settings with which it is made."""

    kind: data.Kind
    values: Mapping[str, Any]

    @cached_property
    def settings(self) -> Any:
        """The settings as the data set takes them."""
        return fill(self.kind.settings, self.values, f"settings of {self.kind.name}")

    @cached_property
    def made(self) -> DataSet:
        """The data set."""
        return self.kind.made(self.settings)


def _settings(subject: Subject) -> None:
    require_settings(subject.kind.settings, "Settings")
    taken = {"name", "masks"} & set(subject.kind.settings.__pydantic_fields__)
    require(not taken, f"its Settings have {', '.join(sorted(taken))}, which the configuration has for all data sets")


def _again(subject: Subject) -> None:
    again = subject.kind.made(subject.settings)
    for name, arrays in subject.made.splits.items():
        same = all(np.array_equal(one, other) for one, other in zip(arrays, again.splits[name], strict=True))
        require(same, f"{name} is another when it is made again")
    same = all(np.array_equal(groups, again.groups[name]) for name, groups in subject.made.groups.items())
    require(same, "groups are others when they are made again")


def _disk(subject: Subject) -> None:
    made = subject.made
    with tempfile.TemporaryDirectory() as name:
        data.write(made, dataclasses.asdict(subject.settings), Path(name))
        info = json.loads(json.dumps(data.info(Path(name))))
        require(info["test_sets"] == list(made.test_sets), "data.json does not tell its test sets")
        for split, arrays in made.splits.items():
            images, masks, labels = data.load(Path(name), split)
            require(0 <= images.min() <= images.max() <= 1, f"images of {split} are not in [0, 1]")
            require(torch.equal(labels, torch.from_numpy(arrays.labels)), f"labels of {split} are others on disk")
            groups = data.groups(Path(name), split)
            require((groups is None) == (split not in made.groups), f"groups of {split} are lost, or new, on disk")
            absent = masks.isnan().all(dim=(1, 2, 3)).numpy()
            require(np.array_equal(absent, ~has_mask(arrays.masks)), f"masks of {split} are others on disk")
        for split, table in made.records.items():
            require(len(table) == len(made.splits[split].labels), f"records of {split} are not one for each image")


def _of_made(check: Callable[[DataSet], None]) -> Callable[[Subject], None]:
    return lambda subject: check(subject.made)


CHECKS: dict[str, Callable[[Subject], None]] = {
    "settings": _settings,
    **{what: _of_made(check) for what, check in contract.CHECKS.items()},
    "the same settings give the same images": _again,
    "written and read again": _disk,
}


def check(file: str, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Check the data set that a Python file defines, made with these settings.

    Yields
    ------
    tuple of str
        What is checked, and what is wrong, empty if nothing.
    """
    for kind in data.known((file,)).of(file, "Settings and make"):
        subject = Subject(kind, values)
        for name, run in CHECKS.items():
            yield name, problem_of(run, subject)
