"""Data sets: each is a module with a frozen pydantic dataclass `Settings` and ``make(settings) -> DataSet``.

A module whose images may be shown in public says so with `PUBLISHABLE`: True, or the sources of which that is true.
`ON_DISK = True` says that its images may be too many for memory: then it has ``make(settings, room)``, where `room`,
an `isnet_bench.data.stored.Room`, gives the arrays of images and masks.
`READS` names the files below the data root that the images come from, so that a change of them is noticed: patterns, in
which ``{KEY}`` stands for a setting; see `isnet_bench.io.inputs.digest`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain, product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from isnet_bench.config import Config, fill
from isnet_bench.config.catalog import GROUPS
from isnet_bench.data import contract, stored
from isnet_bench.data.base import DataSet, Groups, Split, has_mask
from isnet_bench.data.stored import Room, Scratch, in_memory, pieces
from isnet_bench.io import plugins as sources
from isnet_bench.io.errors import BenchError
from isnet_bench.io.files import UNREADABLE, locked, read_json, replacing, write_json, write_text
from isnet_bench.layout import INFO, MADE_OF, arrays_file

log = logging.getLogger(__name__)

IN_MEMORY = 2**28
"""Images and masks of a split that take more bytes than these on disk are read when they are needed."""

_GROUPS = "groups"
_LABELS = "labels"
_LARGE = ("images", "masks")
_REMEDY = "make the data with: python -m isnet_bench prepare --config YOUR.yaml --experiment NAME"


@dataclass(frozen=True)
class Kind:
    """A data set that can be made with settings, a frozen pydantic dataclass.

    It has the name of its module, file or entry point. `publishable` says whether its images may be shown in public, or
    of which sources.
    """

    name: str
    settings: type
    make: Callable[..., DataSet]
    publishable: bool | frozenset[str] = False
    reads: tuple[str, ...] = ()
    on_disk: bool = False

    def made(self, settings: Any, room: Room = in_memory) -> DataSet:
        """Make the data set; where it may be too large for memory, `room` gives its arrays."""
        return self.make(settings, room) if self.on_disk else self.make(settings)


@cache
def known(plugins: tuple[str, ...] = ()) -> sources.Registry[Kind]:
    """Return all data sets: those in this folder, those of installed packages, and those that the files `plugins` hold.

    An entry point names a module with Settings and make; its own name is the data set's.
    """
    folder, installed = sources.folder(__name__, Path(__file__).parent), sources.installed(GROUPS["data"])
    return sources.collect("data set", chain(folder, installed, map(sources.file, plugins)), _read)


def publishable(made: str, asked: str, plugins: tuple[str, ...] = ()) -> bool | frozenset[str]:
    """Return whether images of a data set may be published: all, none, or only those of some sources.

    `made` is its name in data.json, `asked` that in the configuration: they differ where another one stands in.
    """
    kinds = known(plugins).things
    return (kinds.get(made) or kinds[asked]).publishable


def prepare(experiment: str, config: Config, out: Path, planned: str = "") -> None:
    """Make an experiment's data: each split, for some data a ``.csv`` of each, reports, and ``data.json``.

    A split has its images and masks in ``.npy`` files, as `Arrays` has them, and its labels and groups in an ``.npz``.
    `planned` is the digest that the files had which they are made of when it was decided to make them.
    Raises BenchError if the data cannot be found or read, the settings ask for the impossible, or
    a data set is not what it is bound to be.
    """
    asked = config.experiment(experiment).data
    kind = known(config.plugins)[asked.name]
    settings = fill(kind.settings, asked.settings, f"experiments.{experiment}.data")
    log.info("%s: the data %s are made", experiment, asked.name)
    with locked(Path(out)), Scratch(Path(out)) as room:
        made = kind.made(settings, room)
        contract.check(made, asked.name)
        # Taken now, since making the data may download these files.
        of = {"planned": planned, "files": config.files(experiment)}
        write(made, dataclasses.asdict(settings), Path(out), of)


def write(dataset: DataSet, settings: Mapping[str, Any], out: Path, made_of: Mapping[str, str] | None = None) -> None:
    """Write a data set, made with these settings; `made_of` says of what files."""
    # data.json is written last: where it is, all splits are.
    (out / INFO).unlink(missing_ok=True)
    for split, arrays in dataset.splits.items():
        for name in _LARGE:
            stored.save(arrays_file(out, split, name), getattr(arrays, name))
        with replacing(out / f"{split}.npz") as temporary:
            np.savez_compressed(temporary, labels=arrays.labels, **_attributes(dataset, split))
    for split, table in dataset.records.items():
        with replacing(out / f"{split}.csv") as temporary:
            table.to_csv(temporary, index_label="index")
    for name, text in dataset.texts.items():
        write_text(out / name, text)
    write_json(out / INFO, {**_describe(dataset, settings), MADE_OF: dict(made_of or {})})
    log.info("%s in %s", dataset.title, out)


def info(folder: Path) -> dict[str, Any]:
    """Return what ``data.json`` says of prepared data, but not of what files. Raises BenchError if there are none."""
    found = read_json(Path(folder) / INFO, _REMEDY)
    found.pop(MADE_OF, None)
    return found


def load(folder: Path, split: str) -> Split:
    """Open one split of prepared data; it is read at once, but for images that take more than `IN_MEMORY`.

    Raises BenchError if a file is missing or damaged.
    """
    folder = Path(folder)
    images, masks = (stored.opened(arrays_file(folder, split, name), _REMEDY) for name in _LARGE)
    found = _stored(folder, split, (_LABELS, _GROUPS))
    known = info(folder).get("digests", {}) if (folder / INFO).is_file() else {}
    if known.get(split, "") not in ("", _digest([images, masks, *found.values()])):
        raise BenchError(
            f"{folder / split}.npz belongs to other data than {INFO} beside it says: delete the folder, then {_REMEDY}"
        )
    labels = torch.from_numpy(found[_LABELS])
    whole = Split(stored.StoredImages(images), stored.StoredMasks(masks), labels)
    return whole if images.nbytes + masks.nbytes > IN_MEMORY else Split(whole.images[:], whole.masks[:], labels)


def groups(folder: Path, split: str) -> Groups | None:
    """Return the groups of one split of prepared data; None: it has none. Raises BenchError as `load` does."""
    told = info(folder)
    if split not in told.get("group_images", {}):
        return None
    found, attributes = _stored(Path(folder), split, (_LABELS, _GROUPS)), told["group_names"]
    return Groups(_crossed(found[_LABELS], found[_GROUPS], attributes), tuple(product(told["classes"], attributes)))


def _crossed(labels: np.ndarray, attributes: np.ndarray, names: Sequence[str]) -> np.ndarray:
    return labels * len(names) + attributes


def _stored(folder: Path, split: str, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Read arrays of a split; groups may be missing."""
    path = folder / f"{split}.npz"
    try:
        with np.load(path, allow_pickle=False) as found:
            return {name: found[name] for name in names if name != _GROUPS or name in found}
    except FileNotFoundError as error:
        raise BenchError(f"{path} is missing: {_REMEDY}") from error
    except UNREADABLE as error:
        raise BenchError(f"{path} is damaged ({error}): delete it, then {_REMEDY}") from error


def _attributes(dataset: DataSet, split: str) -> dict[str, np.ndarray]:
    return {_GROUPS: dataset.groups[split]} if split in dataset.groups else {}


def _read(source: sources.Source, module: object) -> Iterator[tuple[str, Kind]]:
    settings, make = getattr(module, "Settings", None), getattr(module, "make", None)
    if make is not None and settings is not None:
        told = {"publishable": "PUBLISHABLE", "reads": "READS", "on_disk": "ON_DISK"}
        given = {key: getattr(module, name) for key, name in told.items() if hasattr(module, name)}
        yield source.name, Kind(source.name, settings, make, **given)


def _describe(dataset: DataSet, settings: Mapping[str, Any]) -> dict[str, Any]:
    channels, height = dataset.splits["train"].images.shape[1:3]
    return {
        "name": dataset.name,
        "title": dataset.title,
        "stand_in": dataset.stand_in,
        "classes": list(dataset.classes),
        "channels": channels,
        "image_size": height,
        "test_sets": list(dataset.test_sets),
        "background_changes": {name: list(sets) for name, sets in dataset.background_changes.items()},
        "splits": {name: len(arrays.labels) for name, arrays in dataset.splits.items()},
        "background_area": {name: _background_area(dataset.splits[name].masks) for name in dataset.test_sets},
        "settings": dict(settings),
        "digests": {
            name: _digest([*arrays, *_attributes(dataset, name).values()]) for name, arrays in dataset.splits.items()
        },
        **_describe_groups(dataset),
        **dataset.details,
    }


def _describe_groups(dataset: DataSet) -> dict[str, Any]:
    """Say which groups there are, and of how many images of each split; nothing where there are none."""
    names, images = dataset.group_names, {}
    for split, attributes in dataset.groups.items():
        ids = _crossed(dataset.splits[split].labels, attributes, names)
        images[split] = np.bincount(ids, minlength=len(dataset.classes) * len(names)).tolist()
    return {"group_names": list(names), "group_images": images} if names else {}


def _digest(arrays: Iterable[np.ndarray]) -> str:
    found = hashlib.sha256()
    for array in arrays:
        found.update(f"{array.dtype} {array.shape}".encode())
        for rows in pieces(array):
            found.update(array[rows].tobytes())
    return found.hexdigest()


def _background_area(masks: np.ndarray) -> float | None:
    pixels = foreground = 0
    for rows in pieces(masks):
        there = masks[rows][has_mask(masks[rows])]
        pixels += there.size
        foreground += int(there.sum())
    return 1 - foreground / pixels if pixels else None
