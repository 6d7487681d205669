"""Checks of an X-ray data set before anything is trained on it: what one should know of it beside what holds for all.

Problems, which stop everything, and warnings, which are reported, are a sentence each.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from isnet_bench.data.images import checks
from isnet_bench.data.images.checks import SPLITS, Report
from isnet_bench.data.xray import grey

COLUMNS = ("image", "label", "source", "split", "mask")
OPTIONAL = ("patient",)

_PLAUSIBLE_AREA = (0.05, 0.7)


def rows(table: pd.DataFrame, path: Path, labels: Collection[str], root: Path) -> Iterator[str]:
    """Find what is wrong with the lines of a manifest: as `checks.rows`, and sources that are missing."""
    yield from checks.rows(table, path, labels, root)
    for line in table.index[table["source"] == ""]:
        yield f"{path}, line {line}: the source is missing; write where the image comes from"


def report(seen: pd.DataFrame, fingerprints: np.ndarray, path: Path, labels: Sequence[str]) -> Report:
    """Sum up images that have no problem, with their fingerprints, uint64 (N, 4).

    The table has one row for each image, by the line in the manifest, with the columns image, label, source, split,
    mask_origin (given or predicted), width and height (pixels), area and rim (see `checks.doubtful_masks`), digest and
    `isnet_bench.data.xray.grey.STATISTICS`.
    """
    told = grey.table(seen)
    warnings = [
        *_of_training_sources(seen),
        *_of_test_sources(seen, labels),
        *checks.rare_classes(seen, labels),
        *_of_mask_origins(seen),
        *checks.odd_masks(seen, *_PLAUSIBLE_AREA),
        *grey.warnings(told),
        *checks.alike(seen, fingerprints),
    ]
    tables = {
        "Images by class and source": checks.counts(seen, ["split", "source"], labels),
        "Masks": checks.masks(seen),
        "Frames": checks.frames(seen, ["source", "label"]),
        "Grey values inside the foreground": told,
    }
    return Report(f"Checks of {path.parent.name}/{path.name}", tuple(warnings), tables)


def _of_training_sources(seen: pd.DataFrame) -> Iterator[str]:
    train = seen[seen["split"] == "train"]
    counts = pd.crosstab(train["source"], train["label"])
    if len(counts) == 1:
        yield (
            f"all training images have the source {counts.index[0]}: the table cannot show whether the label goes "
            "along with an origin inside it"
        )
        return
    for source, row in counts.iterrows():
        if (row > 0).sum() == 1:
            yield f"in train, every image of source {source} is {row.idxmax()}: its background gives the label away"
    known = counts.max(axis=1).sum() / counts.to_numpy().sum()
    blind = counts.sum().max() / counts.to_numpy().sum()
    if known > blind:
        yield (
            f"in train, who knows nothing but the source guesses {known:.0%} of the labels right, and who knows "
            f"nothing at all {blind:.0%}: a classifier may learn the sources instead of the classes"
        )


def _of_test_sources(seen: pd.DataFrame, labels: Sequence[str]) -> Iterator[str]:
    sources = {split: set(seen["source"][seen["split"] == split]) for split in SPLITS}
    for source in sorted(sources["test_ood"] & sources["train"]):
        yield f"source {source} is in train and in test_ood: that part of test_ood is not out of distribution"
    for split in ("val", "test_iid"):
        for source in sorted(sources[split] - sources["train"]):
            yield f"source {source} is in {split} but not in train: {split} is not distributed like the training images"
    test = seen[seen["split"] == "test_ood"]
    for source, part in test.groupby("source"):
        absent = [label for label in labels if label not in set(part["label"])]
        if absent:
            yield (
                f"in test_ood, source {source} has no {' and no '.join(absent)}: there, too, label and source go "
                "together in part, so look at the recall of each class rather than at one number"
            )


def _of_mask_origins(seen: pd.DataFrame) -> Iterator[str]:
    train = seen[seen["split"] == "train"]
    given = (train["mask_origin"] == "given").groupby(train["label"]).mean()
    if given.max() - given.min() >= 0.1:
        shares = ", ".join(f"{label} {share:.0%}" for label, share in given.items())
        yield f"in train, the share of given instead of predicted masks differs between classes: {shares}"
