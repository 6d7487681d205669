"""From a collection to a manifest: labels, views, splits by patient; and several manifests as one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from pathlib import Path, PurePath
from typing import Annotated, Literal

import numpy as np
import pandas as pd
from PIL import Image
from pydantic import Field, NonNegativeInt, PositiveInt
from pydantic.dataclasses import dataclass

from isnet_bench.data import builders
from isnet_bench.data.builders.base import Collection, read_table
from isnet_bench.data.xray.checks import COLUMNS
from isnet_bench.io.errors import BenchError
from isnet_bench.io.files import replacing

log = logging.getLogger(__name__)

# It shows that no patient is in two splits.
_PATIENT = "patient"
# Columns of manifests that not all have.
_OPTIONAL = (_PATIENT, "group")
_OWN = "own"
_SHARE = 0.15
_SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".dcm", ".dicom")
_VIEWS = {
    "frontal": {"PA", "AP", "AP erect", "AP supine", "frontal"},
    "erect": {"PA", "AP erect"},
}

Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class Settings:
    """What of a collection goes where: the options of the verb `manifest`, whose help says what each is.

    With the split "own", images keep the collection's own splits. The shares are those of the training patients of each
    label that go to "val" and "test_iid"; None: 0.15, or 0 where the split is another one, or there is one already.
    `labels` (finding to label; "" leaves it out) come beside or instead of the
    collection's own. With a limit, patients are drawn at random.
    """

    split: Literal["train", "val", "test_iid", "test_ood", "own"] = "train"
    val_share: Share | None = None
    test_iid_share: Share | None = None
    part: str | None = None
    views: Literal["frontal", "erect"] = "frontal"
    masked: bool = False
    labels: dict[str, str] = field(default_factory=dict)
    limit: PositiveInt | None = None
    seed: NonNegativeInt = 0

    def __post_init__(self) -> None:
        given = [share for share in (self.val_share, self.test_iid_share) if share is not None]
        if given and self.split not in ("train", _OWN):
            raise ValueError(f"val_share and test_iid_share are for split train or own only, not for {self.split}")
        if sum(self.shares.values()) >= 1:
            raise ValueError(f"val_share and test_iid_share must sum to less than 1: {self.shares}")

    @property
    def shares(self) -> dict[str, float]:
        """The share of the patients that each split but "train" gets."""
        given = {"val": self.val_share, "test_iid": self.test_iid_share}
        default = _SHARE if self.split in ("train", _OWN) else 0.0
        return {split: default if share is None else share for split, share in given.items()}


def build(name: str, folder: Path, out: Path, settings: Settings) -> None:
    """Write the manifest `out` of a collection, which lies as it is published, unpacked, below the manifest's folder.

    Where a collection has several masks for one image, or other values in them than 0 and foreground, their union is
    written beside the manifest, in the folder ``<manifest's stem>_masks/<name>/``. Raises BenchError if the collection
    or its metadata are not there, if nothing of it can be used, or if a split would be empty.
    """
    collection = builders.known()[name]
    # Links are followed, as they are where the manifest is checked.
    folder, out = folder.resolve(), out.resolve()
    inside = _inside(folder, out.parent)
    try:
        records = collection.read(folder)
    except BenchError as error:
        raise BenchError(f"{error}: {collection.remedy}") from error
    records = _select(records, collection, folder, settings)
    rng = np.random.default_rng(settings.seed)
    if settings.limit is not None:
        records = _draw(records, settings, rng)
    records["split"] = _split(records, collection, settings, rng)
    manifest = pd.DataFrame(
        {
            "image": [(inside / image).as_posix() for image in records["image"]],
            "label": records["label"],
            "source": name,
            "split": records["split"],
            "mask": _masks(records, collection, folder, out, name),
            **{column: records[column] for column in _OPTIONAL if column in records},
        }
    )
    _write(manifest, out)


def combine(manifests: Sequence[Path], out: Path) -> None:
    """Write several manifests as one, with paths relative to its folder.

    Raises BenchError if one cannot be read, if an image lies outside the folder of ``out`` or is listed twice, or if a
    patient of one source is in two splits.
    """
    out = out.resolve()
    whole = pd.concat([_rebased(path.resolve(), out.parent) for path in manifests], ignore_index=True)
    twice = whole["image"][whole["image"].duplicated()]
    if len(twice):
        raise BenchError(f"{twice.iloc[0]} is listed twice in {_list(manifests)}: keep it in one place")
    known = whole[whole[_PATIENT] != ""]
    splits = known.groupby(["source", _PATIENT])["split"].unique()
    leaks = splits[splits.map(len) > 1]
    if len(leaks):
        source, patient = leaks.index[0]
        raise BenchError(
            f"patient {patient} of {source} is in {' and '.join(leaks.iloc[0])} ({_list(manifests)}): build one "
            f"manifest of {source} instead of several"
        )
    _write(whole, out)


def _list(paths: Sequence[Path]) -> str:
    return ", ".join(str(path) for path in paths)


def _inside(folder: Path, root: Path) -> PurePath:
    if not folder.is_relative_to(root):
        raise BenchError(
            f"{folder} does not lie below {root}, the manifest's folder: write the manifest into a folder that holds "
            "the images"
        )
    return folder.relative_to(root)


def _select(records: pd.DataFrame, collection: Collection, folder: Path, settings: Settings) -> pd.DataFrame:
    _check_findings(settings.labels, records["finding"], collection)
    own = dict(zip(*[records["finding"].unique()] * 2, strict=True)) if collection.labels is None else collection.labels
    records = records.assign(label=_label(records["finding"], {**own, **settings.labels}))
    records["unit"] = records[_PATIENT].where(records[_PATIENT] != "", records["image"])
    in_part = np.asarray(_in_part(records, collection, settings.part))
    views = records["view"] if "view" in records else pd.Series("frontal", index=records.index)
    steps = {
        f"of another part than {settings.part}": in_part,
        f"of a view that is not {settings.views}": views.isin(_VIEWS[settings.views]),
        "without a mask": _has_mask(records) if settings.masked else np.ones(len(records)),
        "of a finding without label": records["label"] != "",
        f"in another format than {', '.join(_SUFFIXES)}": records["image"].str.lower().str.endswith(_SUFFIXES),
        "listed again": ~records["image"].where(in_part).duplicated(),
        "listed, but not there": [(folder / image).is_file() for image in records["image"]],
    }
    kept, left_out = np.ones(len(records), bool), {}
    for reason, fits in steps.items():
        fits = np.asarray(fits, dtype=bool)
        left_out[reason] = int(np.sum(kept & ~fits))
        kept &= fits
    told = ", ".join(f"{number} {reason}" for reason, number in left_out.items() if number) or "none"
    if not kept.any():
        raise BenchError(
            f"none of the {len(records)} images of {folder} can be used ({told}): unpack all of it; {collection.remedy}"
        )
    log.info("%s: %d images used, left out: %s", collection.title, kept.sum(), told)
    return records[kept].reset_index(drop=True)


def _label(findings: pd.Series, labels: Mapping[str, str]) -> pd.Series:
    def label(finding: str) -> str:
        steps = finding.split("/")
        beginnings = ("/".join(steps[:length]) for length in range(len(steps), 0, -1))
        return next((labels[beginning] for beginning in beginnings if beginning in labels), "")

    return findings.map({finding: label(finding) for finding in findings.unique()})


def _check_findings(labels: Mapping[str, str], findings: pd.Series, collection: Collection) -> None:
    there = sorted(findings.unique())
    for finding in labels:
        if not any(f"{other}/".startswith(f"{finding}/") for other in there):
            raise BenchError(f"{collection.title} has no finding {finding!r}; it has {', '.join(filter(None, there))}")


def _in_part(records: pd.DataFrame, collection: Collection, part: str | None) -> pd.Series | np.ndarray:
    if part is None:
        if "part" in records and records.drop_duplicates(["image", "part"])["image"].duplicated().any():
            parts = ", ".join(collection.parts)
            raise BenchError(f"parts of {collection.title} share images: choose one of them with --part: {parts}")
        return np.ones(len(records), bool)
    if part not in collection.parts:
        parts = ", ".join(collection.parts) or "none"
        raise BenchError(f"{collection.title} has no part {part!r}; its parts: {parts}")
    return records["part"] == part


def _has_mask(records: pd.DataFrame) -> np.ndarray:
    return records["mask"].map(bool).to_numpy() if "mask" in records else np.zeros(len(records))


def _draw(records: pd.DataFrame, settings: Settings, rng: np.random.Generator) -> pd.DataFrame:
    """Keep at most so many images of each label, and of each split of the collection's own, patient by patient."""
    patients = np.sort(records["unit"].unique())
    order = dict(zip(rng.permutation(patients), range(len(patients)), strict=True))
    shuffled = records.iloc[np.argsort(records["unit"].map(order), kind="stable")]
    drawn = shuffled.groupby(["label", "split"] if settings.split == _OWN else "label").head(settings.limit)
    return drawn.sort_index().reset_index(drop=True)


def _split(records: pd.DataFrame, collection: Collection, settings: Settings, rng: np.random.Generator) -> pd.Series:
    """Share the training images out to the splits that are missing."""
    if settings.split == _OWN and "split" not in records:
        raise BenchError(f"{collection.title} has no splits of its own: choose another value of --split")
    given = records["split"] if settings.split == _OWN else pd.Series(settings.split, index=records.index)
    shares = {split: share for split, share in settings.shares.items() if share and split not in set(given)}
    training = given == "train"
    splits = given.mask(training, _share_out(records[training], shares, rng))
    empty = [split for split in [*given.unique(), *shares] if split not in set(splits)]
    if empty:
        number, what = records["unit"].nunique(), "patients" if records[_PATIENT].any() else "images"
        raise BenchError(
            f"{number} {what} are too few for split {', '.join(empty)}: choose other values of val_share and "
            "test_iid_share, 0 for a split without images"
        )
    return splits


def _share_out(records: pd.DataFrame, shares: Mapping[str, float], rng: np.random.Generator) -> pd.Series:
    """Share patients out; one with images of several labels counts to the first of these by name."""
    strata = records.groupby("unit")["label"].min()
    splits = pd.Series("train", index=strata.index)
    for label in sorted(strata.unique()):
        patients = rng.permutation(np.sort(strata.index[strata == label]))
        # Rounded cumulatively: of six patients with 15 % each, one goes to each split.
        bounds = np.rint(np.cumsum(list(shares.values())) * len(patients)).astype(int)
        for split, chosen in zip(shares, np.split(patients, bounds), strict=False):
            splits[chosen] = split
    return records["unit"].map(splits)


def _masks(records: pd.DataFrame, collection: Collection, folder: Path, out: Path, name: str) -> list[str]:
    if "mask" not in records:
        return [""] * len(records)
    paths = []
    for image, masks in zip(records["image"], records["mask"], strict=True):
        path = folder / masks[0] if masks else None
        if len(masks) > 1 or (masks and collection.foreground):
            path = out.parent / f"{out.stem}_masks" / name / f"{PurePath(image).stem}.png"
            _unite([folder / mask for mask in masks], path, collection.foreground)
        paths.append("" if path is None else path.relative_to(out.parent).as_posix())
    return paths


def _unite(masks: Sequence[Path], path: Path, foreground: Callable[[np.ndarray], np.ndarray] | None) -> None:
    sides = []
    for mask in masks:
        try:
            with Image.open(mask) as opened:
                values = np.asarray(opened if foreground and opened.mode == "P" else opened.convert("L"))
                # Any value but 0 is lung: masks hold 1, 255 or one bit.
                sides.append(foreground(values) if foreground else values > 0)
        except (OSError, SyntaxError, ValueError) as error:
            raise BenchError(f"mask {mask} cannot be read ({error}): unpack the collection anew") from error
    if len({side.shape for side in sides}) > 1:
        raise BenchError(f"masks {_list(masks)} differ in size: unpack the collection anew")
    with replacing(path) as temporary:
        Image.fromarray(np.any(sides, axis=0).astype(np.uint8) * 255).save(temporary)


def _rebased(path: Path, root: Path) -> pd.DataFrame:
    if not path.is_file():
        raise BenchError(f"{path} is missing: name manifests that are there")
    table = read_table(path, COLUMNS, optional=_OPTIONAL)
    inside = _inside(path.parent, root)
    for column in ("image", "mask"):
        table[column] = [(inside / entry).as_posix() if entry else "" for entry in table[column]]
    return table


def _write(manifest: pd.DataFrame, out: Path) -> None:
    manifest = manifest.drop(columns=[name for name in _OPTIONAL if name in manifest and not manifest[name].any()])
    with replacing(out) as temporary:
        manifest.to_csv(temporary, index=False)
    counts = manifest.groupby(["split", "source", "label"]).size()
    told = "; ".join(f"{split} {source} {label} {number}" for (split, source, label), number in counts.items())
    log.info("%s: %s", out, told)
