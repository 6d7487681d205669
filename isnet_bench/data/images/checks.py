"""Checks of images that a manifest lists, before anything is trained on them: what makes them unfit, and what to know.

Problems, which stop everything, and warnings, which are reported, are a sentence each. What tables of images hold is
said in `isnet_bench.data.images.collection`.
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

COLUMNS = ("image", "label", "split", "mask")
SPLITS = ("train", "val", "test_iid", "test_ood")

_HASH_SIDE = 16
# Of 256 bits. Among 1,300 radiographs, the two most alike in different splits, of different people, differed in 23.
_NEAR = 12
_PAIRS_AT_ONCE = 2**20
_MOST_LISTED = 20
_FULL, _NEARLY_ALL = 0.99, 0.9
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
    """Find what is wrong with the lines of a manifest: labels, splits, missing and misplaced files.

    The table is that of `manifest.read`; no file may lie outside of the data root. Each problem is a sentence.
    """
    yield from manifest.misspelt(table, path, "label", labels, "correct it, or add it to the configuration's labels")
    yield from manifest.misspelt(table, path, "split", SPLITS, "correct it")
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


def in_two_splits(table: pd.DataFrame, path: Path, column: str) -> Iterator[str]:
    """Find patients or subjects, named in a column, of a source that are in several splits, which is a problem.

    An empty cell says nothing.
    """
    for (source, name), images in table[table[column] != ""].groupby(["source", column], sort=False):
        first, whose = images.iloc[0], f"{column} {name}{f' of {source}' if source else ''}"
        for line, other in images[images["split"] != first["split"]].iloc[:1].iterrows():
            yield (
                f"{path}, lines {images.index[0]} and {line}: {whose} is in {first['split']} and in {other['split']}; "
                f"keep all images of a {column} in one split"
            )


def digest(image: np.ndarray) -> str:
    """Return a text that no two different images, uint8 (H, W) or (H, W, 3), share."""
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


def full_masks(seen: pd.DataFrame, path: Path, setting: str = "mask_values") -> Iterator[str]:
    """Tell of masks of which most are foreground throughout: a problem. The table needs the columns image and area.

    `setting` is that which tells foreground from background.
    """
    there = seen[seen["area"].notna()]
    full = there["image"][there["area"] >= _FULL]
    if len(full) > len(there) / 2:
        yield (
            f"{path}: the masks of {len(full)} of {len(there)} images, such as {full.iloc[0]}, are foreground "
            f"throughout; let {setting} name the values of the foreground, or correct them"
        )


def doubtful_masks(seen: pd.DataFrame) -> str:
    """Return why the masks may be another thing than the foreground, empty if they are plausible as a whole.

    The table needs the columns area and rim: the shares of the frame and of its outermost pixels that are foreground,
    NaN for an image without a mask.
    """
    seen = seen[seen["area"].notna()]
    if seen.empty:
        return ""
    share = ((seen["rim"] > 0.5) | (seen["area"] > _NEARLY_ALL)).mean()
    return f"foreground covers the rim, or nearly all, of {share:.0%} of the images" if share > 0.5 else ""


def _same_images(seen: pd.DataFrame) -> Iterator[pd.DataFrame]:
    copies = seen[seen["digest"].duplicated(keep=False)]
    yield from (same for _, same in copies.groupby("digest", sort=False))


def counts(seen: pd.DataFrame, columns: Sequence[str], labels: Sequence[str]) -> pd.DataFrame:
    """Count images of each label by these columns, of which split is the first."""
    found = pd.crosstab([seen[column] for column in columns], seen["label"]).reindex(columns=list(labels), fill_value=0)
    found["all"] = found.sum(axis=1)
    return _in_order(found.reset_index().rename_axis(columns=None))


def _in_order(table: pd.DataFrame) -> pd.DataFrame:
    return table.sort_values("split", key=lambda splits: splits.map(SPLITS.index), kind="stable")


def masks(seen: pd.DataFrame) -> pd.DataFrame:
    """Return by split, label and origin of the mask the share of the frame that is foreground."""
    groups = seen.groupby(["split", "label", "mask_origin"])["area"]
    table = groups.agg(images="size", smallest="min", median="median", largest="max").reset_index()
    table = table.round({"smallest": 3, "median": 3, "largest": 3})
    return _in_order(table)


def rare_classes(seen: pd.DataFrame, labels: Sequence[str]) -> Iterator[str]:
    """Warn of classes with few images outside of the training images."""
    for split in SPLITS[1:]:
        found = seen["label"][seen["split"] == split].value_counts()
        numbers = {label: int(found.get(label, 0)) for label in labels if len(found)}
        rare = [f"{number} images of {label}" for label, number in numbers.items() if number < _FEW]
        if rare:
            yield f"{split} has {_listed(rare)}: what is measured on them is uncertain"


def odd_masks(seen: pd.DataFrame, low: float, high: float) -> Iterator[str]:
    """Warn of masks that are doubtful as a whole, and of those whose share of the frame is not `low` to `high`."""
    doubt = doubtful_masks(seen)
    if doubt:
        yield f"{doubt}: the masks may be inverted, or of something else"
    odd = seen[(seen["area"] < low) | (seen["area"] > high)]
    if len(odd):
        named = [f"{row.image} {row.area:.0%} ({row.mask_origin})" for row in odd.itertuples()]
        yield f"the foreground of {len(odd)} images is not {low:.0%} to {high:.0%} of the frame: {_listed(named)}"


def frames(seen: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Return by these columns how large images are, medians in pixels."""
    found = seen.assign(aspect=seen["width"] / seen["height"]).groupby(list(columns))
    table = found.agg(
        images=("aspect", "size"), width=("width", "median"), height=("height", "median"), aspect=("aspect", "median")
    )
    return table.round({"aspect": 2}).reset_index()


def alike(seen: pd.DataFrame, fingerprints: np.ndarray) -> Iterator[str]:
    """Warn of images that are the same in one split, or look the same in two, by fingerprints uint64 (N, 4)."""
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
    step = max(1, _PAIRS_AT_ONCE // max(1, len(other)))
    for start in range(0, len(one), step):
        differing = one[start : start + step, None] ^ other[None]
        distances = np.bitwise_count(differing).sum(-1, dtype=np.uint16)
        for i, j in np.argwhere(distances <= _NEAR):
            yield start + int(i), int(j), int(distances[i, j])


def _listed(names: Sequence[str], separator: str = ", ") -> str:
    rest = len(names) - _MOST_LISTED
    return separator.join(names[:_MOST_LISTED]) + (f" and {rest} more" if rest > 0 else "")
