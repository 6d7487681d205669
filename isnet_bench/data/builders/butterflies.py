"""The Leeds Butterfly set: photographs of ten species, a segmentation of each."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd

from isnet_bench.data.builders.base import Collection, photographs
from isnet_bench.io.errors import BenchError

# In the order of their numbers.
_SPECIES = (
    *("monarch", "zebra_longwing", "crimson_patched_longwing", "common_buckeye", "american_copper"),
    *("mourning_cloak", "giant_swallowtail", "cabbage_white", "red_admiral", "painted_lady"),
)
_NAME = re.compile(r"(\d{3})\d{4}")
# Palette indices of the butterfly.
_BUTTERFLY = (1, 3)


def _leeds(folder: Path) -> pd.DataFrame:
    rows = []
    for path in sorted((folder / "images").glob("*.png")):
        match = _NAME.fullmatch(path.stem)
        if match is None or not 1 <= int(match[1]) <= len(_SPECIES):
            raise BenchError(f"{path} is not named by a species from 001 to 010 and a number of four digits")
        mask = f"segmentations/{path.stem}_seg0.png"
        masks = (mask,) if (folder / mask).is_file() else ()
        rows.append({"image": f"images/{path.name}", "finding": _SPECIES[int(match[1]) - 1], "mask": masks})
    if not rows:
        raise BenchError(f"{folder} holds no images/0010001.png")
    return photographs(rows)


COLLECTIONS = {
    "leeds_butterflies": Collection(
        title="the Leeds Butterfly Dataset",
        home="http://www.josiahwang.com/dataset/leedsbutterfly/",
        read=_leeds,
        labels=None,
        foreground=lambda values: np.isin(values, _BUTTERFLY),
    )
}
