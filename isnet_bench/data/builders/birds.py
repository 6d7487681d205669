"""Caltech-UCSD Birds 200-2011, and the Waterbirds that were made of it.

The segmentations of both are an archive of their own, ``segmentations/``: grey values that say how many of the
annotators took a pixel for the bird.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pandas as pd

from isnet_bench.data.builders.base import Collection, find, photographs, read_table
from isnet_bench.io.errors import BenchError

_BIRDS, _PLACES = {"0": "landbird", "1": "waterbird"}, {"0": "land", "1": "water"}
# The places of validation and test images do not go with the birds.
_SPLITS = {"0": "train", "1": "val", "2": "test_ood"}


def _waterbirds(folder: Path) -> pd.DataFrame:
    path = find(folder, ["metadata.csv"])
    table = read_table(path, ["img_filename", "y", "split", "place"])
    coded = {"finding": ("y", _BIRDS), "group": ("place", _PLACES), "split": ("split", _SPLITS)}
    for column, (key, names) in coded.items():
        table[column] = table[key].map(names)
        if table[column].isna().any():
            raise BenchError(
                f"{path}, column {key}: {table[key][table[column].isna()].iloc[0]!r} is none of {', '.join(names)}"
            )
    masks = [_segmentation(folder, image) for image in table["img_filename"]]
    return table[[*coded]].assign(image=table["img_filename"], mask=masks, part=table["split"], patient="")


def _cub(folder: Path) -> pd.DataFrame:
    table = _numbered(folder, "images.txt")
    labels, training = (_numbered(folder, f"{name}.txt") for name in ("image_class_labels", "train_test_split"))
    classes = _numbered(folder, "classes.txt")
    rows = []
    for number, image in table.items():
        if number not in labels or number not in training or labels[number] not in classes:
            raise BenchError(f"{folder / 'images.txt'} lists the image {number}, but the other lists do not have it")
        finding = classes[labels[number]].partition(".")[2]
        split = "train" if training[number] == "1" else "test_iid"
        rows.append(
            {"image": f"images/{image}", "finding": finding, "split": split, "mask": _segmentation(folder, image)}
        )
    return photographs(rows)


def _numbered(folder: Path, name: str) -> dict[str, str]:
    """Read a list whose lines are a number and what has it."""
    lines = find(folder, [name]).read_text(encoding="utf-8").splitlines()
    return dict(line.split(maxsplit=1) for line in lines if len(line.split()) > 1)


def _segmentation(folder: Path, image: str) -> tuple[str, ...]:
    path = PurePosixPath("segmentations", image).with_suffix(".png")
    return (str(path),) if (folder / path).is_file() else ()


_HOME = "https://www.vision.caltech.edu/datasets/cub_200_2011/"
COLLECTIONS = {
    "cub": Collection("Caltech-UCSD Birds 200-2011", _HOME, _cub, None, foreground=lambda values: values >= 128),
    "waterbirds": Collection(
        title="Waterbirds",
        home="https://github.com/kohpangwei/group_DRO",
        read=_waterbirds,
        labels=None,
        parts=tuple(_SPLITS.values()),
        foreground=lambda values: values >= 128,
    ),
}
