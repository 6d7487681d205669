"""Images that a manifest lists, looked at one by one, and the data set that is made of them.

A table of images has one row for each, by its line in the manifest. Beside the columns of the manifest it has, once the
images were seen, those that `describe` tells.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from isnet_bench.data.base import Arrays, DataSet
from isnet_bench.data.images import checks, manifest
from isnet_bench.data.stored import Room, in_memory, pieces, release
from isnet_bench.io.errors import BenchError

log = logging.getLogger(__name__)

SMALLEST = 32
"""Side of an image, in pixels, at least."""
_LOGGED_EVERY = 1000
_RELEASED_EVERY = 64


class Seen(NamedTuple):
    """One image: resized, uint8 (C, S, S), its mask (1, S, S) as in `Arrays`, and what `describe` and `checks` tell."""

    image: np.ndarray
    mask: np.ndarray
    fingerprint: np.ndarray
    told: dict[str, str | int | float]


class Part(NamedTuple):
    """One split of the manifest, and what is recorded of each of its images."""

    arrays: Arrays
    records: pd.DataFrame


class Collection(NamedTuple):
    """Images that were seen: their table, difference hashes uint64 (N, 4), splits, and names of those left out."""

    table: pd.DataFrame
    fingerprints: np.ndarray
    parts: dict[str, Part]
    dropped: list[str]

    @property
    def details(self) -> dict[str, Any]:
        """How many masks of each origin the splits have, and what was left out."""
        origins = {name: part.records["mask_origin"].value_counts().to_dict() for name, part in self.parts.items()}
        return {"masks": origins, "dropped_images": self.dropped}


def chosen(
    table: pd.DataFrame, path: Path, splits: Sequence[str], labels: Sequence[str], persons: Sequence[str]
) -> pd.DataFrame:
    """Return the rows of these splits of a manifest.

    Raises BenchError if a split is empty, a class has no training image, or a person, named in one of the columns
    `persons`, is in two splits.
    """
    manifest.refuse(checks.empty_splits(table, path, splits, labels))
    table = table[table["split"].isin(splits)]
    for column in persons:
        manifest.refuse(checks.in_two_splits(table, path, column))
    return table


def gather(
    table: pd.DataFrame,
    path: Path,
    labels: Sequence[str],
    recorded: Sequence[str],
    look: Callable[[Any], Seen | None],
    setting: str,
    room: Room = in_memory,
) -> Collection:
    """Look at all images of a manifest's table; ``look(row)`` gives None for an image that is to be left out.

    Images and masks go into the `room`, so that no more than a few of them are in memory at any time. `recorded` names
    the columns of the records; `setting` is that which names the values of the foreground in masks. Raises BenchError
    if an image cannot be used, nothing of a split or class is left, images are in two splits or have two labels, or
    most masks have no background.
    """
    splits = [split for split in checks.SPLITS if split in set(table["split"])]
    shelves = {split: _Shelf(room, int((table["split"] == split).sum())) for split in splits}
    seen, dropped = _look_at_all(table, path, look, shelves)
    table = table.loc[list(seen)].join(pd.DataFrame([told for told, _ in seen.values()], index=list(seen)))
    manifest.refuse(checks.empty_splits(table, path, splits, labels))
    manifest.refuse(checks.copies(table, path))
    manifest.refuse(checks.full_masks(table, path, setting))
    parts = {split: _part(table[table["split"] == split], shelf, labels, recorded) for split, shelf in shelves.items()}
    return Collection(table, np.stack([fingerprint for _, fingerprint in seen.values()]), parts, dropped)


def changed(sources: Sequence[np.ndarray], change: Callable[[slice], np.ndarray], room: Room) -> np.ndarray:
    """Return an array in a `room`, of the shape of the first source; ``change(rows)`` makes some rows."""
    made = room(sources[0].shape)
    for rows in pieces(*sources, made):
        made[rows] = change(rows)
    return made


def describe(name: str, image: np.ndarray, mask: np.ndarray | None, origin: str) -> dict[str, str | int | float]:
    """Return what is to be known of an image, uint8 (H, W) or (H, W, 3), its mask, bool (H, W), and where that is from.

    Raises BenchError if the image is too small, or has one value throughout.
    """
    height, width = image.shape[:2]
    if min(height, width) < SMALLEST:
        raise BenchError(f"{name} has {width} x {height} pixels, fewer than {SMALLEST} on a side; delete its line")
    if image.min() == image.max():
        raise BenchError(
            f"{name} shows nothing: all of its pixels have one value; replace the file, or delete its line"
        )
    rim = None if mask is None else np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
    return {
        "digest": checks.digest(image),
        "width": width,
        "height": height,
        "area": np.nan if mask is None else float(mask.mean()),
        "rim": np.nan if rim is None else float(rim.mean()),
        "mask_origin": origin,
    }


def data_set(
    name: str,
    title: str,
    labels: Sequence[str],
    parts: Mapping[str, Part],
    changes: Mapping[str, tuple[str, str]],
    details: Mapping[str, Any],
) -> DataSet:
    """Return the data set that has these parts; all but "train" and "val" are test sets.

    Its groups are what the records have as group, if they have it.
    """
    grouped = {split: part.records["group"] for split, part in parts.items() if "group" in part.records}
    names = sorted(set().union(*grouped.values()))
    return DataSet(
        name=name,
        title=title,
        stand_in=False,
        classes=tuple(labels),
        splits={split: part.arrays for split, part in parts.items()},
        test_sets=tuple(split for split in parts if split not in ("train", "val")),
        background_changes=changes,
        records={split: part.records for split, part in parts.items()},
        details=details,
        groups={split: group.map(names.index).to_numpy(np.int64) for split, group in grouped.items()},
        group_names=tuple(names),
    )


def reported(made: DataSet, found: Collection, report: checks.Report, path: Path) -> DataSet:
    """Return a data set that tells of its checks: in the log, in files beside it, in its details and its title."""
    for warning in report.warnings:
        log.warning("%s: %s", path, warning)
    doubt = checks.doubtful_masks(found.table)
    counts = next(iter(report.tables.values()))
    return dataclasses.replace(
        made,
        title=f"{made.title} (MASKS IN DOUBT: {doubt})" if doubt else made.title,
        texts={"report.md": report.markdown(), "class_by_source.csv": counts.to_csv(index=False)},
        details={**made.details, **found.details, "warnings": list(report.warnings)},
    )


class _Shelf:
    """Images and masks of a split, one after the other; there is room for so many."""

    def __init__(self, room: Room, number: int) -> None:
        self._room, self._number, self._filled = room, number, 0
        self._images = self._masks = np.empty(0, np.uint8)

    def put(self, image: np.ndarray, mask: np.ndarray) -> None:
        if not self._filled:
            self._images, self._masks = (self._room((self._number, *one.shape)) for one in (image, mask))
        self._images[self._filled], self._masks[self._filled] = image, mask
        self._filled += 1
        if self._filled % _RELEASED_EVERY == 0:
            release(self._images)
            release(self._masks)

    def filled(self) -> tuple[np.ndarray, np.ndarray]:
        """Return what there is; all of the room, where that is full."""
        if self._filled == self._number:
            return self._images, self._masks
        return self._images[: self._filled], self._masks[: self._filled]


def _look_at_all(
    table: pd.DataFrame, path: Path, look: Callable[[Any], Seen | None], shelves: Mapping[str, _Shelf]
) -> tuple[dict[int, tuple[dict[str, str | int | float], np.ndarray]], list[str]]:
    """Put images and masks onto the shelf of their split; return the rest of what is seen, and names left out."""
    seen = {}
    problems, dropped = [], []
    for number, row in enumerate(table.itertuples(), start=1):
        try:
            one = look(row)
        except BenchError as error:
            problems.append(f"{path}, line {row.Index}: {error}")
        else:
            if one is None:
                dropped.append(row.image)
            else:
                shelves[row.split].put(one.image, one.mask)
                seen[row.Index] = one.told, one.fingerprint
        if number % _LOGGED_EVERY == 0:
            log.info("%d of %d images are read", number, len(table))
    manifest.refuse(problems)
    if dropped:
        log.warning("%d images are left out, since no foreground was predicted: %s", len(dropped), ", ".join(dropped))
    return seen, dropped


def _part(rows: pd.DataFrame, shelf: _Shelf, labels: Sequence[str], recorded: Sequence[str]) -> Part:
    arrays = Arrays(*shelf.filled(), rows["label"].map(list(labels).index).to_numpy(np.int64))
    return Part(arrays, rows[list(recorded)].reset_index(drop=True))
