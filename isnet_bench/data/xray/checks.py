"""Checks of an X-ray data set before anything is trained on it: what makes it unfit, and what one should know of it.

Problems, which stop everything, and warnings, which are reported, are a sentence each.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from hashlib import sha256
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import imagehash
import numpy as np
import pandas as pd
from PIL import Image

from isnet_bench.data.images import manifest
from isnet_bench.data.xray import grey

COLUMNS = ("image", "label", "source", "split", "mask")
OPTIONAL = ("patient",)
SPLITS = ("train", "val", "test_iid", "test_ood")

_HASH_SIDE = 16
# Of 256 bits. Among 1,300 radiographs, the two most alike in different splits, of different people, differed in 23.
_NEAR = 12
_CHUNK = 1024
_MOST_LISTED = 20
_FULL, _NEARLY_ALL = 0.99, 0.9
_PLAUSIBLE_AREA = (0.05, 0.7)
_FEW = 20


class Report(NamedTuple):
    """What one should know of the data: heading, warnings, and tables with a heading each."""

    title: str
    warnings: tuple[str, ...]
    tables: Mapping[str, pd.DataFrame]

    def markdown(self) -> str:
        """Return the report as Markdown."""
        listed = [f"- {warning}" for warning in self.warnings] or ["None."]
        parts = [f"# {self.title}", "## Warnings", "\n".join(listed)]
        for heading, table in self.tables.items():
            parts += [f"## {heading}", table.to_markdown(index=False)]
        return "\n\n".join(parts) + "\n"


def rows(table: pd.DataFrame, path: Path, labels: Collection[str], root: Path) -> Iterator[str]:
    """Find what is wrong with the lines of a manifest: labels, splits, empty cells, missing and misplaced files.

    The table is that of `manifest.read`; no file may lie outside of the data root. Each problem is a sentence.
    """
    yield from manifest.misspelt(table, path, "label", labels, "correct it, or add it to the configuration's labels")
    yield from manifest.misspelt(table, path, "split", SPLITS, "correct it")
    for line in table.index[table["source"] == ""]:
        yield f"{path}, line {line}: the source is missing; write where the image comes from"
    yield from manifest.misplaced(table, path, "image", root)
    yield from manifest.misplaced(table, path, "mask", root, optional=True)


def empty_splits(table: pd.DataFrame, path: Path, splits: Sequence[str], labels: Sequence[str]) -> Iterator[str]:
    """Find splits without images, and classes without training images: problems."""
    for split in splits:
        if not (table["split"] == split).any():
            yield f"{path} has no image with split {split}; give it some"
    training = set(table["label"][table["split"] == "train"])
    for label in labels if training else ():
        if label not in training:
            yield f"{path} has no training image of {label!r}; add some, or take it out of the configuration's labels"


def shared_patients(table: pd.DataFrame, path: Path) -> Iterator[str]:
    """Find patients of a source whose images are in several splits, which is a problem; an empty cell says nothing."""
    for (source, patient), images in table[table["patient"] != ""].groupby(["source", "patient"], sort=False):
        first = images.iloc[0]
        for line, other in images[images["split"] != first["split"]].iloc[:1].iterrows():
            yield (
                f"{path}, lines {images.index[0]} and {line}: patient {patient} of {source} is in {first['split']} and "
                f"in {other['split']}; keep all images of a patient in one split"
            )


def digest(image: np.ndarray) -> str:
    """Return a text that no two different images, uint8 (H, W), share."""
    return sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()


def fingerprint(image: np.ndarray) -> np.ndarray:
    """Return an image's difference hash of 256 bits, uint64 (4,): copies, resized or compressed, differ in few bits."""
    bits = imagehash.dhash(Image.fromarray(image), hash_size=_HASH_SIDE).hash
    return np.packbits(bits).view(np.uint64)


def copies(seen: pd.DataFrame, path: Path) -> Iterator[str]:
    """Find images that are in two splits, or have two labels, pixel for pixel: problems.

    The table has one row for each image, with the columns image, label, split and digest, by the line in the manifest.
    """
    for same in _same_images(seen):
        first = same.iloc[0]
        for line, other in same[same["split"] != first["split"]].iterrows():
            yield (
                f"{path}, lines {same.index[0]} and {line}: {first['image']} ({first['split']}) and {other['image']} "
                f"({other['split']}) are the same image; keep it in one split"
            )
        for line, other in same[(same["split"] == first["split"]) & (same["label"] != first["label"])].iterrows():
            yield (
                f"{path}, lines {same.index[0]} and {line}: {first['image']} ({first['label']}) and {other['image']} "
                f"({other['label']}) are the same image with different labels; keep the right one"
            )


def full_masks(seen: pd.DataFrame, path: Path) -> Iterator[str]:
    """Tell of masks of which most are foreground throughout: a problem. The table needs the columns image and area."""
    full = seen["image"][seen["area"] >= _FULL]
    if len(full) > len(seen) / 2:
        yield (
            f"{path}: the masks of {len(full)} of {len(seen)} images, such as {full.iloc[0]}, are foreground "
            "throughout; let mask_values name the values of the foreground, or correct them"
        )


def doubtful_masks(seen: pd.DataFrame) -> str:
    """Return why the masks may be another thing than the foreground, empty if they are plausible as a whole.

    The table needs the columns area and rim: the shares of the frame and of its outermost pixels that are foreground.
    """
    share = ((seen["rim"] > 0.5) | (seen["area"] > _NEARLY_ALL)).mean()
    return f"foreground covers the rim, or nearly all, of {share:.0%} of the images" if share > 0.5 else ""


def report(seen: pd.DataFrame, fingerprints: np.ndarray, path: Path, labels: Sequence[str]) -> Report:
    """Sum up images that have no problem, with their fingerprints, uint64 (N, 4).

    The table has one row for each image, by the line in the manifest, with the columns image, label, source, split,
    mask_origin (given or predicted), width and height (pixels), area and rim (see `doubtful_masks`), digest and
    `isnet_bench.data.xray.grey.STATISTICS`.
    """
    told = grey.table(seen)
    warnings = [
        *_of_training_sources(seen),
        *_of_test_sources(seen, labels),
        *_of_rare_classes(seen, labels),
        *_of_masks(seen),
        *grey.warnings(told),
        *_of_copies(seen, fingerprints),
    ]
    tables = {
        "Images by class and source": _by_class_and_source(seen, labels),
        "Masks": _of_mask_origins(seen),
        "Frames": _of_frames(seen),
        "Grey values inside the foreground": told,
    }
    return Report(f"Checks of {path.parent.name}/{path.name}", tuple(warnings), tables)


def _same_images(seen: pd.DataFrame) -> Iterator[pd.DataFrame]:
    copies = seen[seen["digest"].duplicated(keep=False)]
    yield from (same for _, same in copies.groupby("digest", sort=False))


def _by_class_and_source(seen: pd.DataFrame, labels: Sequence[str]) -> pd.DataFrame:
    counts = pd.crosstab([seen["split"], seen["source"]], seen["label"]).reindex(columns=list(labels), fill_value=0)
    counts["all"] = counts.sum(axis=1)
    table = counts.reset_index().rename_axis(columns=None)
    return _in_order(table)


def _in_order(table: pd.DataFrame) -> pd.DataFrame:
    return table.sort_values("split", key=lambda splits: splits.map(SPLITS.index), kind="stable")


def _of_mask_origins(seen: pd.DataFrame) -> pd.DataFrame:
    groups = seen.groupby(["split", "label", "mask_origin"])["area"]
    table = groups.agg(images="size", smallest="min", median="median", largest="max").reset_index()
    table = table.round({"smallest": 3, "median": 3, "largest": 3})
    return _in_order(table)


def _of_frames(seen: pd.DataFrame) -> pd.DataFrame:
    frames = seen.assign(aspect=seen["width"] / seen["height"]).groupby(["source", "label"])
    table = frames.agg(
        images=("aspect", "size"), width=("width", "median"), height=("height", "median"), aspect=("aspect", "median")
    )
    return table.round({"aspect": 2}).reset_index()


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


def _of_rare_classes(seen: pd.DataFrame, labels: Sequence[str]) -> Iterator[str]:
    for split in SPLITS[1:]:
        found = seen["label"][seen["split"] == split].value_counts()
        for label in labels if len(found) else ():
            number = int(found.get(label, 0))
            if number < _FEW:
                yield f"{split} has {number} images of {label}: what is measured on them is uncertain"


def _of_masks(seen: pd.DataFrame) -> Iterator[str]:
    train = seen[seen["split"] == "train"]
    given = (train["mask_origin"] == "given").groupby(train["label"]).mean()
    if given.max() - given.min() >= 0.1:
        shares = ", ".join(f"{label} {share:.0%}" for label, share in given.items())
        yield f"in train, the share of given instead of predicted masks differs between classes: {shares}"
    doubt = doubtful_masks(seen)
    if doubt:
        yield f"{doubt}: the masks may be inverted, or of something else"
    low, high = _PLAUSIBLE_AREA
    odd = seen[(seen["area"] < low) | (seen["area"] > high)]
    if len(odd):
        named = [f"{row.image} {row.area:.0%} ({row.mask_origin})" for row in odd.itertuples()]
        yield f"the foreground of {len(odd)} images is not {low:.0%} to {high:.0%} of the frame: {_listed(named)}"


def _of_copies(seen: pd.DataFrame, fingerprints: np.ndarray) -> Iterator[str]:
    for same in _same_images(seen):
        named = " and ".join(f"{row.image} ({row.label})" for row in same.itertuples())
        yield f"{named} are the same image in {same['split'].iloc[0]}"
    pairs = []
    for one, other in combinations(SPLITS, 2):
        first, second = (np.flatnonzero(seen["split"] == split) for split in (one, other))
        for i, j, distance in _near(fingerprints[first], fingerprints[second]):
            names = seen["image"].iloc[[first[i], second[j]]]
            pairs.append(f"{names.iloc[0]} ({one}) and {names.iloc[1]} ({other}), {distance} of {_HASH_SIDE**2} bits")
    if pairs:
        yield f"images in different splits look the same; if they are, keep them in one split: {_listed(pairs, '; ')}"


def _near(one: np.ndarray, other: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """Find pairs of hashes, uint64 (N, 4) and (M, 4), that differ in few bits."""
    for start in range(0, len(one), _CHUNK):
        differing = one[start : start + _CHUNK, None] ^ other[None]
        distances = np.bitwise_count(differing).sum(-1, dtype=np.uint16)
        for i, j in np.argwhere(distances <= _NEAR):
            yield start + int(i), int(j), int(distances[i, j])


def _listed(names: Sequence[str], separator: str = ", ") -> str:
    rest = len(names) - _MOST_LISTED
    return separator.join(names[:_MOST_LISTED]) + (f" and {rest} more" if rest > 0 else "")
