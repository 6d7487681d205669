"""Shenzhen Hospital chest X-ray set: tuberculosis and normal; lung masks of most, published by others."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from isnet_bench.builders.base import Collection, index_files
from isnet_bench.builders.nlm import LABELS, read_coded

__all__ = ["COLLECTION"]


def _read(folder: Path) -> pd.DataFrame:
    table = read_coded(folder, "CHNCXR")
    masks = index_files([folder / "mask"], "CHNCXR_*_mask.png", folder)
    names = [f"{Path(image).stem}_mask.png" for image in table["image"]]
    table["mask"] = [(masks[name],) if name in masks else () for name in names]
    return table


COLLECTION = Collection(
    title="the Shenzhen Hospital set",
    home="https://data.lhncbc.nlm.nih.gov/public/Tuberculosis-Chest-X-ray-Datasets/",
    read=_read,
    labels=LABELS,
)
