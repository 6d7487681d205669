"""BIMCV COVID-19+: radiographs and CT of patients with a positive test, in a BIDS-like layout."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd

from isnet_bench.data.builders.base import Collection, find, read_table

_METADATA = ("participants.tsv", "covid19_posi/participants.tsv")
# The names in the first, the second and the third release.
_REPORTS = ("labels_covid19_posi.tsv", "labels_covid_posi.tsv", "Labels_covid_123.tsv")
_VIEW = re.compile(r"_vp-(pa|ap)_(?:cr|dx)$")
_SERIES_DESCRIPTION, _PHOTOMETRIC = "0008103E", "00280004"


def _read(folder: Path) -> pd.DataFrame:
    path = find(folder, _METADATA)
    patients = read_table(path, ["participant"], "\t")["participant"]
    reports = _reports(path.parent / "derivatives" / "labels")
    images = [
        image
        for patient in patients.unique()
        if patient.startswith("sub-")
        for image in sorted((path.parent / patient).glob("ses-*/mod-rx/*.png"))
    ]
    rows = [_row(image, folder, reports) for image in images]
    return pd.DataFrame(rows, columns=["image", "patient", "finding", "view"])


def _row(image: Path, folder: Path, reports: dict[str, str]) -> tuple[str, str, str, str]:
    tags = _tags(image.with_suffix(".json"))
    session = image.parent.parent
    inverted = _tag(tags, _PHOTOMETRIC) == "MONOCHROME1"
    finding = "inverted" if inverted else reports.get(session.name, "no report")
    view = _view(image, _tag(tags, _SERIES_DESCRIPTION).upper())
    return image.relative_to(folder).as_posix(), session.parent.name, f"COVID-19/{finding}", view


def _view(image: Path, description: str) -> str:
    """Return the view by the file's name; some lateral and lying ones are known by the series' Spanish name only."""
    match = _VIEW.search(image.stem)
    if match is None or re.search(r"\bLAT", description):
        return "other"
    if match[1] == "ap" and re.search(r"\bSUP|HORIZONTAL", description):
        return "AP supine"
    return match[1].upper()


def _reports(folder: Path) -> dict[str, str]:
    reports: dict[str, str] = {}
    for path in (folder / name for name in _REPORTS):
        if path.is_file():
            table = read_table(path, ["ReportID", "Labels"], "\t")
            reports.update(zip(table["ReportID"], table["Labels"].map(_reported), strict=True))
    return reports


def _reported(text: str) -> str:
    """Sort a list such as "['normal', 'COVID 19']"; its separator differs between releases."""
    labels = {label.strip(" '\"") for label in re.split(r"[,\t]", text.strip("[]"))}
    if "COVID 19" in labels:
        return "reported"
    return "reported normal" if labels == {"normal"} else "not reported"


def _tags(path: Path) -> dict[str, Any]:
    """Return the DICOM tags beside an image; a few of these files are missing or damaged."""
    try:
        tags = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return tags if isinstance(tags, dict) else {}


def _tag(tags: dict[str, Any], name: str) -> str:
    entry = tags.get(name)
    values = entry.get("Value") if isinstance(entry, dict) else None
    return str(values[0]) if values else ""


COLLECTIONS = {
    "bimcv": Collection(
        title="BIMCV COVID-19+",
        home="https://bimcv.cipf.es/bimcv-projects/bimcv-covid19/",
        read=_read,
        # A manifest has no column that could say that grey values are inverted.
        labels={"COVID-19": "covid19", "COVID-19/inverted": ""},
    ),
}
