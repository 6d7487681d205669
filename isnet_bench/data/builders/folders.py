"""Photographs in folders of their own: one for each class, and perhaps one around these for each split."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from isnet_bench.data.builders.base import Collection, photographs
from isnet_bench.io.errors import BenchError

_IMAGES = (".png", ".jpg", ".jpeg")
_SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test_iid"}
_SPLITS |= {"test_iid": "test_iid", "test_ood": "test_ood"}
_MASK = "_mask"


def _folders(folder: Path) -> pd.DataFrame:
    """List ``[images/][SPLIT/]CLASS/NAME.jpg``; its mask is ``NAME_mask.png`` beside it, or below ``masks/``."""
    home = folder / "images" if (folder / "images").is_dir() else folder
    rows = []
    for path in sorted(home.rglob("*")):
        steps = path.relative_to(home).parts
        if path.suffix.lower() not in _IMAGES or path.stem.endswith(_MASK) or steps[0] == "masks":
            continue
        if len(steps) not in (2, 3) or (len(steps) == 3 and steps[0] not in _SPLITS):
            splits = ", ".join(_SPLITS)
            raise BenchError(f"{path} is in no folder CLASS or SPLIT/CLASS of {home}, where SPLIT is one of {splits}")
        masks = [path.with_name(f"{path.stem}{_MASK}.png"), (folder / "masks").joinpath(*steps).with_suffix(".png")]
        found = tuple(mask.relative_to(folder).as_posix() for mask in masks if mask.is_file())
        row = {"image": path.relative_to(folder).as_posix(), "finding": steps[-2], "mask": found[:1]}
        rows.append(row | ({"split": _SPLITS[steps[0]]} if len(steps) == 3 else {}))
    if not rows:
        raise BenchError(f"{folder} holds no folder of a class with {', '.join(_IMAGES)} files")
    if 0 < sum("split" in row for row in rows) < len(rows):
        raise BenchError(f"{home} has classes inside and outside of folders of splits: move all of them inside")
    return photographs(rows)


COLLECTIONS = {"folders": Collection("photographs in a folder for each class", "your own disk", _folders, None)}
