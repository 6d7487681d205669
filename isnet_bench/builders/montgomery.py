"""Montgomery County chest X-ray set: screening for tuberculosis, with a mask of each lung."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from isnet_bench.builders.base import Collection
from isnet_bench.builders.nlm import LABELS, read_coded

__all__ = ["COLLECTION"]

_SIDES = ("leftMask", "rightMask")


def _read(folder: Path) -> pd.DataFrame:
    table = read_coded(folder, "MCUCXR")
    # Both sides or none: half of the lungs is no mask.
    masks = [tuple(f"ManualMask/{side}/{Path(image).name}" for side in _SIDES) for image in table["image"]]
    table["mask"] = [sides if all((folder / side).is_file() for side in sides) else () for sides in masks]
    return table


COLLECTION = Collection(
    title="the Montgomery County set",
    home="https://data.lhncbc.nlm.nih.gov/public/Tuberculosis-Chest-X-ray-Datasets/",
    read=_read,
    labels=LABELS,
)
