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
from isnet_bench.data.base import NO_MASK, Arrays, DataSet, has_mask
from isnet_bench.io.checks import problem_of, require, require_settings

_TRAINING = ("train", "val")


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
        return self.kind.make(self.settings)


def _settings(subject: Subject) -> None:
    require_settings(subject.kind.settings, "Settings")
    taken = {"name", "masks"} & set(subject.kind.settings.__pydantic_fields__)
    require(not taken, f"its Settings have {', '.join(sorted(taken))}, which the configuration has for all data sets")


def _splits(subject: Subject) -> None:
    made = subject.made
    require(isinstance(made, DataSet), f"make returns a {type(made).__name__}, no isnet_bench.data.DataSet")
    require(made.title and made.name.isidentifier(), "it needs a title, and a name of letters, digits and underscores")
    require(made.test_sets, "it has no test set")
    for name in made.test_sets:
        sound = name.isidentifier() and name not in _TRAINING
        require(sound, f"a test set cannot have the name {name!r}: it must be letters, digits and underscores")
    wanted = {*_TRAINING, *made.test_sets}
    require(set(made.splits) == wanted, f"its splits are {sorted(made.splits)}, and should be {sorted(wanted)}")
    require(set(made.records) <= wanted, "records are of splits that there are not")


def _arrays(subject: Subject) -> None:
    forms = set()
    for name, arrays in subject.made.splits.items():
        images, masks, labels = arrays
        require(isinstance(arrays, Arrays), f"{name} is no isnet_bench.data.base.Arrays")
        require(images.dtype == np.uint8 and images.ndim == 4, f"images of {name} must be uint8 (N, C, H, W)")
        require(len(images) == len(masks) == len(labels) > 0, f"{name} is empty, or its arrays differ in length")
        require(masks.shape == (len(images), 1, *images.shape[2:]), f"masks of {name} have the shape {masks.shape}")
        forms.add(images.shape[1:])
    require(len(forms) == 1, f"images have different shapes: {sorted(forms)}")
    require(all(height == width for _, height, width in forms), "images must be square")


def _labels(subject: Subject) -> None:
    made = subject.made
    for name, (_, _, labels) in made.splits.items():
        require(labels.dtype == np.int64 and labels.ndim == 1, f"labels of {name} must be int64 (N,)")
        require(0 <= labels.min() <= labels.max() < len(made.classes), f"labels of {name} are not those of the classes")
    missing = set(range(len(made.classes))) - set(made.splits["train"].labels.tolist())
    require(not missing, f"no training image shows {', '.join(made.classes[label] for label in sorted(missing))}")


def _masks(subject: Subject) -> None:
    for name, arrays in subject.made.splits.items():
        there = arrays.masks[has_mask(arrays.masks)]
        require((there <= 1).all(), f"masks of {name} must be 0 or 1, or 255 everywhere where there is none")
        require((arrays.masks[~has_mask(arrays.masks)] == NO_MASK).all(), f"masks of {name} mix 255 and others")
        require(there.any((1, 2, 3)).all(), f"a mask of {name} has no foreground")
        require(not len(there) or not there.all(), f"no mask of {name} has a background")


def _changes(subject: Subject) -> None:
    made = subject.made
    for change, names in made.background_changes.items():
        require(set(names) <= set(made.test_sets), f"{change!r} is between {names}, which are no test sets")
        before, after = (made.splits[name] for name in names)
        same = np.array_equal(before.labels, after.labels) and np.array_equal(before.masks, after.masks)
        require(same, f"the test sets of {change!r} differ in labels or masks")
        inside = np.broadcast_to(before.masks == 1, before.images.shape)
        require(np.array_equal(before.images[inside], after.images[inside]), f"{change!r} changes foregrounds")


def _again(subject: Subject) -> None:
    again = subject.kind.make(subject.settings)
    for name, arrays in subject.made.splits.items():
        same = all(np.array_equal(one, other) for one, other in zip(arrays, again.splits[name], strict=True))
        require(same, f"{name} is another when it is made again")


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
            absent = masks.isnan().all(dim=(1, 2, 3)).numpy()
            require(np.array_equal(absent, ~has_mask(arrays.masks)), f"masks of {split} are others on disk")
        for split, table in made.records.items():
            require(len(table) == len(made.splits[split].labels), f"records of {split} are not one for each image")


CHECKS: dict[str, Callable[[Subject], None]] = {
    "settings": _settings,
    "splits and test sets": _splits,
    "shapes and types": _arrays,
    "labels": _labels,
    "masks": _masks,
    "changes of the background": _changes,
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
