"""Two tuberculosis sets of the U.S. National Library of Medicine.

Montgomery County: screening, with a mask of each lung. Shenzhen Hospital: lung masks of most, published by others.
"""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from isnet_bench.data.builders.base import Collection, index_files
from isnet_bench.io.errors import BenchError

_HOME = "https://data.lhncbc.nlm.nih.gov/public/Tuberculosis-Chest-X-ray-Datasets/"
_FINDINGS = {"0": "normal", "1": "tuberculosis"}
# Tuberculosis is none of the three labels that the collections have in common.
_LABELS = {"normal": "normal", "tuberculosis": ""}
_SIDES = ("leftMask", "rightMask")


def _montgomery(folder: Path) -> pd.DataFrame:
    table = _coded(folder, "MCUCXR")
    # Both sides or none: half of the lungs is no mask.
    masks = [tuple(f"ManualMask/{side}/{Path(image).name}" for side in _SIDES) for image in table["image"]]
    table["mask"] = [sides if all((folder / side).is_file() for side in sides) else () for sides in masks]
    return table


def _shenzhen(folder: Path) -> pd.DataFrame:
    table = _coded(folder, "CHNCXR")
    masks = index_files([folder / "mask"], "CHNCXR_*_mask.png", folder)
    names = [f"{Path(image).stem}_mask.png" for image in table["image"]]
    table["mask"] = [(masks[name],) if name in masks else () for name in names]
    return table


def _coded(folder: Path, prefix: str) -> pd.DataFrame:
    """Read ``CXR_png/``, where a file's name is its metadata: ``<prefix>_<number>_<0 normal, 1 tuberculosis>.png``.

    All are PA views, one for each patient.
    """
    code = re.compile(rf"({prefix}_\d+)_([01])\.png")
    matches = [code.fullmatch(path.name) for path in sorted((folder / "CXR_png").glob(f"{prefix}_*.png"))]
    rows = [(f"CXR_png/{match[0]}", match[1], _FINDINGS[match[2]]) for match in matches if match]
    if not rows:
        raise BenchError(f"{folder} holds no CXR_png/{prefix}_NUMBER_0.png or _1.png")
    return pd.DataFrame(rows, columns=["image", "patient", "finding"]).assign(view="PA")


COLLECTIONS = {
    "montgomery": Collection("the Montgomery County set", _HOME, _montgomery, _LABELS),
    "shenzhen": Collection("the Shenzhen Hospital set", _HOME, _shenzhen, _LABELS),
}
