"""Chest X-rays that a manifest lists; where there is none, a generated phantom stands in, loudly named."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Mapping
from dataclasses import field
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from pydantic import Field, NonNegativeInt
from pydantic.dataclasses import dataclass

from isnet_bench.data import bias as synthetic
from isnet_bench.data import phantom
from isnet_bench.data.base import Arrays, DataSet
from isnet_bench.data.images import manifest
from isnet_bench.data.images import reading as images
from isnet_bench.data.xray import checks, grey
from isnet_bench.io.errors import BenchError
from isnet_bench.io.inputs import data_root

log = logging.getLogger(__name__)

# Published under CC BY 4.0. Terms of the others forbid it, or are each image's own; of your own images, only you know.
PUBLISHABLE = frozenset({"covid_cxnet"})
READS = ("{manifest}",)

_SMALLEST = 32
_LOGGED_EVERY = 1000
_RECORDED = ["image", "source", "mask_origin"]


@dataclass(frozen=True)
class Phantom:
    """Sizes of the phantom that stands in.

    Attributes
    ----------
    train_images, val_images, test_images : int
        Number of images.
    """

    train_images: phantom.Number = 1500
    val_images: phantom.Number = 300
    test_images: phantom.Number = 600


@dataclass(frozen=True)
class Settings:
    """Settings of the data set.

    Attributes
    ----------
    manifest : str
        The manifest, relative to the data root (environment variable ISNET_BENCH_DATA, else ``data/``). Columns image,
        label, source, split (train, val, test_iid, test_ood) and mask, which may be empty; a column patient lets no
        patient of a source be in two splits. Paths are relative to its folder.
    labels : tuple of str
        The classes, in the order of their numbers.
    image_size : int
        Side of the images in pixels, at least 32. The whole frame is resized, without its aspect ratio being kept.
    predicted_masks : str or None
        Folder of the masks of images that the manifest gives none for, relative to the working directory: for the image
        a/b.jpg the file a/b.png. None: every image must have a mask in the manifest.
    mask_values : tuple of int
        Values of the foreground in the manifest's masks: palette indices or grey values. Empty: see
        `isnet_bench.data.images.reading.read_mask`.
    empty_predictions : {"error", "drop"}
        What becomes of images in which the prediction finds no foreground: an error, or they are left out, and counted.
    marks : Bias or None
        Marks that tell the class; None: the images as they are.
    grey_values : {"windowed", "stored"}
        How `isnet_bench.data.images.reading.read` reads files: all by one rule, or those with 8 bits as they are.
    seed : int
        Of marks and of swapped backgrounds; not of training.
    phantom : Phantom or None
        Sizes of the phantom that stands in where there is no manifest. None: that is an error.
    """

    manifest: str = "covid/manifest.csv"
    labels: tuple[str, ...] = ("covid19", "normal", "pneumonia")
    image_size: Annotated[int, Field(ge=_SMALLEST)] = 224
    predicted_masks: str | None = None
    mask_values: tuple[Annotated[int, Field(ge=0, le=65_535)], ...] = ()
    empty_predictions: Literal["error", "drop"] = "error"
    marks: synthetic.Bias | None = None
    grey_values: Literal["windowed", "stored"] = "windowed"
    seed: NonNegativeInt = 0
    phantom: Phantom | None = field(default_factory=Phantom)

    def __post_init__(self) -> None:
        if manifest.locate(Path("manifest"), self.manifest) is None:
            raise ValueError(
                f"manifest must lead down from the data root, and {self.manifest} does not; let ISNET_BENCH_DATA name "
                "another data root"
            )
        if len(set(self.labels)) < max(2, len(self.labels)) or not all(self.labels):
            raise ValueError(f"labels must be two or more different names, not {list(self.labels)}")


class _Seen(NamedTuple):
    """One image of the manifest: resized, uint8 (S, S) and {0, 1} (S, S), and what the checks ask of the original."""

    image: np.ndarray
    mask: np.ndarray
    fingerprint: np.ndarray
    told: dict[str, str | int | float]


class _Part(NamedTuple):
    """One split of the manifest; the records have the columns image, source and mask_origin."""

    arrays: Arrays
    records: pd.DataFrame


def make(settings: Settings) -> DataSet:
    """Read, check and resize the images that the manifest lists.

    Without marks, the test sets are "iid" (split test_iid), "ood" (split test_ood) and "swapped": the iid images with
    the background of an ood image from another source. With marks, all three show the images of split test_iid: "iid"
    with marks as in training, "ood" without marks, "deceiving" with the mark of another class. Raises BenchError if
    anything in the manifest is wrong (all problems are logged), or if there is none and nothing may stand in.
    """
    root = data_root()
    path = root / settings.manifest
    if not path.is_file():
        return _stand_in(settings, path, root)
    splits = [split for split in checks.SPLITS if split != "test_ood" or settings.marks is None]
    table = manifest.read(path, checks.COLUMNS, checks.OPTIONAL)
    manifest.refuse(checks.rows(table, path, settings.labels, root))
    manifest.refuse(checks.empty_splits(table, path, splits, settings.labels))
    table = table[table["split"].isin(splits)]
    manifest.refuse(checks.shared_patients(table, path))
    manifest.refuse(_without_masks(table, path, settings))
    seen, dropped = _look_at_all(table, path, settings)
    table = table.loc[list(seen)].join(pd.DataFrame([one.told for one in seen.values()], index=list(seen)))
    manifest.refuse(checks.empty_splits(table, path, splits, settings.labels))
    manifest.refuse(checks.copies(table, path))
    manifest.refuse(checks.full_masks(table, path))
    report = checks.report(table, np.stack([one.fingerprint for one in seen.values()]), path, settings.labels)
    for warning in report.warnings:
        log.warning("%s: %s", path, warning)
    parts = {split: _part(table[table["split"] == split], seen, settings.labels) for split in splits}
    origins = {split: part.records["mask_origin"].value_counts().to_dict() for split, part in parts.items()}
    details = {"masks": origins, "dropped_images": dropped, "warnings": list(report.warnings)}
    made = (_with_swapped_backgrounds if settings.marks is None else _with_marks)(parts, settings, details)
    counts, doubt = report.tables["Images by class and source"], checks.doubtful_masks(table)
    title = f"{made.title} (MASKS IN DOUBT: {doubt})" if doubt else made.title
    return dataclasses.replace(
        made, title=title, texts={"report.md": report.markdown(), "class_by_source.csv": counts.to_csv(index=False)}
    )


def _stand_in(settings: Settings, path: Path, root: Path) -> DataSet:
    remedy = "write one, or let ISNET_BENCH_DATA name the folder above it"
    # Someone who has put anything there wants X-rays, and is not to get phantoms for a slip of the pen.
    if path.is_symlink() or path.exists() or (path.parent != root and path.parent.exists()):
        raise BenchError(f"the folder {path.parent} has no file {path.name} with the manifest; {remedy}")
    if settings.phantom is None:
        raise BenchError(f"there is no manifest {path}; {remedy}")
    log.warning("there is no manifest %s: a generated chest PHANTOM stands in, and every result says so", path)
    marks = {} if settings.marks is None else {"bias": "shape", "strength": settings.marks.strength}
    drawn = phantom.make(
        phantom.Settings(
            **dataclasses.asdict(settings.phantom), seed=settings.seed, image_size=settings.image_size, **marks
        )
    )
    title = f"{drawn.title} (stand-in for the X-rays of {settings.manifest})"
    return dataclasses.replace(drawn, title=title, stand_in=True)


def _without_masks(table: pd.DataFrame, path: Path, settings: Settings) -> Iterator[str]:
    """Find images that have neither a given nor a predicted mask, or share a predicted one: problems."""
    needy = table["image"][table["mask"] == ""]
    if settings.predicted_masks is None:
        if len(needy):
            yield (
                f"{path}, line {needy.index[0]}: {needy.iloc[0]} has no mask, nor have {len(needy) - 1} others; make "
                "masks with `python -m isnet_bench segment` and let predicted_masks name their folder, or give them all"
            )
        return
    owners: dict[Path, int] = {}
    for line, image in needy.items():
        file = _predicted(image, settings.predicted_masks)
        other = owners.setdefault(file, line)
        if other != line and table["image"][other] != image:
            yield f"{path}, lines {other} and {line}: both images would have the mask {file}; rename one of them"
        elif not file.is_file():
            yield (
                f"{path}, line {line}: {image} has no mask, and there is no predicted one, {file}; make it with "
                "`python -m isnet_bench segment`, or give one in the manifest"
            )


def _predicted(image: str, folder: str) -> Path:
    return Path(folder) / PurePosixPath(image).with_suffix(".png")


def _look_at_all(table: pd.DataFrame, path: Path, settings: Settings) -> tuple[dict[int, _Seen], list[str]]:
    seen: dict[int, _Seen] = {}
    problems, dropped = [], []
    for number, row in enumerate(table.itertuples(), start=1):
        try:
            one = _look(row.image, row.mask, path, settings)
        except BenchError as error:
            problems.append(f"{path}, line {row.Index}: {error}")
        else:
            if one is None:
                dropped.append(row.image)
            else:
                seen[row.Index] = one
        if number % _LOGGED_EVERY == 0:
            log.info("%d of %d images are read", number, len(table))
    manifest.refuse(problems)
    if dropped:
        log.warning("%d images are left out, since no foreground was predicted: %s", len(dropped), ", ".join(dropped))
    return seen, dropped


def _look(name: str, mask_name: str, path: Path, settings: Settings) -> _Seen | None:
    """Read one image and its mask; None if it is to be left out."""
    file = path.parent / mask_name if mask_name else _predicted(name, settings.predicted_masks)
    values, windowed = settings.mask_values if mask_name else (), settings.grey_values == "windowed"
    image, mask = images.read_pair(path.parent / name, file, values, windowed)
    if min(image.shape) < _SMALLEST:
        raise BenchError(f"{name} has {image.shape[1]} x {image.shape[0]} pixels, and an X-ray more; delete its line")
    if image.min() == image.max():
        raise BenchError(
            f"{name} shows nothing: all of its pixels have one value; replace the file, or delete its line"
        )
    small = images.resize_mask(mask, settings.image_size)
    if not small.any():
        if not mask_name and settings.empty_predictions == "drop":
            return None
        remedy = "correct it, or empty the cell" if mask_name else "draw one, or set empty_predictions: drop"
        raise BenchError(f"the mask {file} shows no foreground at image_size {settings.image_size}; {remedy}")
    resized = images.resize(image, settings.image_size)
    told = {
        **grey.statistics(resized, small),
        "digest": checks.digest(image),
        "width": image.shape[1],
        "height": image.shape[0],
        "area": float(mask.mean()),
        "rim": float(np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]]).mean()),
        "mask_origin": "given" if mask_name else "predicted",
    }
    return _Seen(resized, small, checks.fingerprint(image), told)


def _part(rows: pd.DataFrame, seen: Mapping[int, _Seen], labels: tuple[str, ...]) -> _Part:
    shown = [seen[line] for line in rows.index]
    arrays = Arrays(
        np.stack([one.image for one in shown])[:, None],
        np.stack([one.mask for one in shown])[:, None],
        rows["label"].map(labels.index).to_numpy(np.int64),
    )
    return _Part(arrays, rows[_RECORDED].reset_index(drop=True))


def _with_swapped_backgrounds(parts: Mapping[str, _Part], settings: Settings, details: Mapping[str, Any]) -> DataSet:
    iid, ood = parts["test_iid"], parts["test_ood"]
    donors = _donors(iid.records["source"], ood.records["source"], settings, np.random.default_rng(settings.seed))
    around = ood.arrays.images[donors]
    swapped = iid.arrays._replace(images=np.where(iid.arrays.masks > 0, iid.arrays.images, around))
    lent = ood.records.iloc[donors].reset_index(drop=True)
    records = iid.records.assign(background_image=lent["image"], background_source=lent["source"])
    named = {"train": parts["train"], "val": parts["val"], "iid": iid, "ood": ood, "swapped": _Part(swapped, records)}
    return _data_set(named, settings, {"background swapped": ("iid", "swapped")}, details)


def _donors(sources: pd.Series, lending: pd.Series, settings: Settings, rng: np.random.Generator) -> np.ndarray:
    """Draw for each image another one from a different source."""
    drawn = np.empty(len(sources), np.int64)
    for source in sorted(set(sources)):
        choice = np.flatnonzero(lending != source)
        if not choice.size:
            raise BenchError(
                f"{settings.manifest}: all images with split test_ood have the source {source}, which test_iid has, "
                "too, so that there are no other backgrounds to swap; give it some"
            )
        members = (sources == source).to_numpy()
        drawn[members] = rng.choice(choice, members.sum())
    return drawn


def _with_marks(parts: Mapping[str, _Part], settings: Settings, details: Mapping[str, Any]) -> DataSet:
    marks = synthetic.make_marks(settings.marks, len(settings.labels), settings.image_size)
    ready, cut = {}, {}
    for split, part in parts.items():
        arrays, cut[split] = _make_way(part.arrays, marks)
        ready[split] = part._replace(arrays=arrays)
    rng = np.random.default_rng(settings.seed)
    named = {
        name: _marked(ready.get(name, ready["test_iid"]), marks, strength, settings.labels, rng)
        for name, strength in synthetic.strengths(settings.marks).items()
    }
    return _data_set(named, settings, synthetic.CHANGES, {**details, "masks_cut_for_marks": cut})


def _make_way(arrays: Arrays, marks: synthetic.Marks) -> tuple[Arrays, int]:
    """Take the marks' place out of foregrounds that leave none free, such as those of tightly cropped lungs."""
    if marks.sides is None:
        return arrays, 0
    place = marks.covers.any(0)
    corners = [place, place[:, ::-1], place[::-1, ::-1], place[::-1]] if marks.corner else [place]
    blocked = np.all([(arrays.masks[:, 0] & corner).any((1, 2)) for corner in corners], axis=0)
    masks = arrays.masks.copy()
    masks[blocked] &= ~place
    return arrays._replace(masks=masks), int(blocked.sum())


def _marked(
    part: _Part, marks: synthetic.Marks, strength: float | None, labels: tuple[str, ...], rng: np.random.Generator
) -> _Part:
    arrays, records = part
    if strength is None:
        return _Part(arrays, records.assign(mark=""))
    which = synthetic.choose(arrays.labels, len(labels), strength, rng)
    arrays = arrays._replace(images=synthetic.apply(arrays.images, arrays.masks, marks, which))
    return _Part(arrays, records.assign(mark=np.array(labels)[which]))


def _data_set(
    parts: Mapping[str, _Part], settings: Settings, changes: Mapping[str, tuple[str, str]], details: Mapping[str, Any]
) -> DataSet:
    return DataSet(
        name="xray",
        title=f"chest X-rays of {settings.manifest}",
        stand_in=False,
        classes=settings.labels,
        splits={name: part.arrays for name, part in parts.items()},
        test_sets=tuple(name for name in parts if name not in ("train", "val")),
        background_changes=changes,
        records={name: part.records for name, part in parts.items()},
        details=details,
    )
