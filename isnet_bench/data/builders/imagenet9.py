"""ImageNet-9 of the Backgrounds Challenge: the same foregrounds on backgrounds of several kinds.

Each kind is a part, and the group of its images: ``original``, ``mixed_same``, ``mixed_rand``, ``only_fg``, ...
"""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from isnet_bench.data.builders.base import Collection, photographs
from isnet_bench.io.errors import BenchError

_KINDS = (
    *("original", "mixed_same", "mixed_rand", "mixed_next"),
    *("only_fg", "no_fg", "only_bg_b", "only_bg_t"),
)
# The class's number and name: 02_wheeled vehicle.
_CLASS = re.compile(r"\d\d_(.+)")


def _imagenet9(folder: Path) -> pd.DataFrame:
    rows = []
    for kind in _KINDS:
        # Test images of the release are below val; the archives of training images have both.
        for split, name in (("train", "train"), ("test_iid" if kind == "original" else "test_ood", "val")):
            for path in sorted((folder / kind / name).glob("*/*.*")):
                named = _CLASS.fullmatch(path.parent.name)
                if named is None:
                    raise BenchError(f"{path.parent} has no name like 00_dog")
                image, finding = path.relative_to(folder).as_posix(), named[1].replace(" ", "_")
                rows.append({"image": image, "finding": finding, "split": split, "group": kind, "part": kind})
    if not rows:
        raise BenchError(f"{folder} holds no original/val/00_dog, nor another kind of {', '.join(_KINDS)}")
    return photographs(rows)


COLLECTIONS = {
    "imagenet9": Collection(
        title="ImageNet-9 of the Backgrounds Challenge",
        home="https://github.com/MadryLab/backgrounds_challenge/releases",
        read=_imagenet9,
        labels=None,
        parts=_KINDS,
    )
}
