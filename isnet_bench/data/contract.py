"""What a data set is bound to be once it is made: checked whenever one is, so that no training starts on another."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from isnet_bench.data.base import NO_MASK, Arrays, DataSet
from isnet_bench.data.stored import pieces
from isnet_bench.io.checks import Failure, require
from isnet_bench.io.errors import BenchError

_TRAINING = ("train", "val")


def _splits(made: DataSet) -> None:
    require(isinstance(made, DataSet), f"make returns a {type(made).__name__}, no isnet_bench.data.DataSet")
    require(made.title and made.name.isidentifier(), "it needs a title, and a name of letters, digits and underscores")
    require(made.test_sets, "it has no test set")
    for name in made.test_sets:
        sound = name.isidentifier() and name not in _TRAINING
        require(sound, f"a test set cannot have the name {name!r}: it must be letters, digits and underscores")
    wanted = {*_TRAINING, *made.test_sets}
    require(set(made.splits) == wanted, f"its splits are {sorted(made.splits)}, and should be {sorted(wanted)}")
    require(set(made.records) <= wanted, "records are of splits that there are not")


def _shapes(made: DataSet) -> None:
    forms = set()
    for name, arrays in made.splits.items():
        require(isinstance(arrays, Arrays), f"{name} is no isnet_bench.data.base.Arrays")
        images, masks, labels = arrays
        sound = images.dtype == np.uint8 and images.ndim == 4
        require(sound, f"images of {name} must be uint8 (N, C, H, W), 0 to 255, not {_told(images)}")
        require(len(images) == len(masks) == len(labels) > 0, f"{name} is empty, or its arrays differ in length")
        sound = masks.dtype == np.uint8 and masks.shape == (len(images), 1, *images.shape[2:])
        require(sound, f"masks of {name} must be uint8 (N, 1, H, W), as large as the images, not {_told(masks)}")
        forms.add(images.shape[1:])
    require(len(forms) == 1, f"images have different shapes: {sorted(forms)}")
    require(all(height == width for _, height, width in forms), f"images must be square, not {sorted(forms)[0][1:]}")


def _labels(made: DataSet) -> None:
    for name, (_, _, labels) in made.splits.items():
        sound = labels.dtype == np.int64 and labels.ndim == 1
        require(sound, f"labels of {name} must be int64 (N,), not {_told(labels)}")
        require(0 <= labels.min() <= labels.max() < len(made.classes), f"labels of {name} are not those of the classes")
    missing = set(range(len(made.classes))) - set(made.splits["train"].labels.tolist())
    require(not missing, f"no training image shows {', '.join(made.classes[label] for label in sorted(missing))}")


def _masks(made: DataSet) -> None:
    for name, arrays in made.splits.items():
        images = full = 0
        for rows in pieces(arrays.masks):
            masks = arrays.masks[rows]
            there = masks[~(masks == NO_MASK).all((1, 2, 3))]
            others = sorted(set(np.unique(there).tolist()) - {0, 1})
            said = (
                f"masks of {name} must be 0 or 1, or {NO_MASK} everywhere where there is none; they have {others[:3]}"
            )
            require(not others, said)
            require(there.any((1, 2, 3)).all(), f"a mask of {name} has no foreground")
            images += len(there)
            full += int(there.all((1, 2, 3)).sum())
        require(full <= images / 2, f"{full / max(images, 1):.0%} of the masks of {name} have no background")


def _groups(made: DataSet) -> None:
    names = made.group_names
    require(bool(names) == bool(made.groups), "it has groups without names, or names of groups without any")
    require(set(made.groups) <= set(made.splits), "groups are of splits that there are not")
    require(len(set(names)) == len(names) and all(names), f"names of groups are empty or there twice: {names}")
    for name, groups in made.groups.items():
        sound = groups.dtype == np.int64 and groups.shape == made.splits[name].labels.shape
        require(sound, f"groups of {name} must be int64 (N,), one for each image, not {_told(groups)}")
        require(0 <= groups.min() <= groups.max() < len(names), f"groups of {name} are not those of the names")


def _changes(made: DataSet) -> None:
    for change, names in made.background_changes.items():
        require(set(names) <= set(made.test_sets), f"{change!r} is between {names}, which are no test sets")
        before, after = (made.splits[name] for name in names)
        same = np.array_equal(before.labels, after.labels) and before.masks.shape == after.masks.shape
        for rows in pieces(*before[:2], *after[:2]) if same else ():
            same &= np.array_equal(before.masks[rows], after.masks[rows])
            inside = np.broadcast_to(before.masks[rows] == 1, before.images[rows].shape)
            kept = np.array_equal(before.images[rows][inside], after.images[rows][inside])
            require(not same or kept, f"{change!r} changes foregrounds")
        require(same, f"the test sets of {change!r} differ in labels or masks")


def _told(array: np.ndarray) -> str:
    return f"{array.dtype} {array.shape}"


CHECKS: dict[str, Callable[[DataSet], None]] = {
    "splits and test sets": _splits,
    "shapes and types": _shapes,
    "labels": _labels,
    "masks": _masks,
    "changes of the background": _changes,
    "groups": _groups,
}


def check(made: DataSet, name: str) -> None:
    """Raise BenchError, one sentence, for the first check that a data set of this name does not pass."""
    try:
        for one in CHECKS.values():
            one(made)
    except Failure as failure:
        raise BenchError(f"the data set {name} breaks its contract: {failure}") from failure
