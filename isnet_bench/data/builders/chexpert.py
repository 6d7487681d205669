"""CheXpert: radiographs with findings mined from the reports, each positive, negative, uncertain or not mentioned."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from isnet_bench.data.builders.base import Collection, find, read_table, records

_COLUMNS = ("Path", "Frontal/Lateral", "AP/PA", "No Finding", "Pneumonia", "Support Devices")
_POSITIVE, _UNCERTAIN = 1, -1
_PARTS = ("train", "valid")


def _read(folder: Path) -> pd.DataFrame:
    paths = {"train": find(folder, ["train.csv"])}
    # 200 studies that radiologists labelled; not in every copy.
    if (folder / "valid.csv").is_file():
        paths["valid"] = folder / "valid.csv"
    return pd.concat([_read_part(path, part) for part, path in paths.items()], ignore_index=True)


def _read_part(path: Path, part: str) -> pd.DataFrame:
    table = read_table(path, _COLUMNS)
    table = table[table["Frontal/Lateral"] == "Frontal"]
    # CheXpert-v1.0/train/patient00001/study1/view1_frontal.jpg: the first folder is the collection's own.
    places = table["Path"].str.extract(rf"((?:{'|'.join(_PARTS)})/(patient\d+)/.*)").fillna("")
    return records(places[0], places[1], _findings(table), table["AP/PA"], "other").assign(part=part)


def _findings(table: pd.DataFrame) -> pd.Series:
    marks = table[["No Finding", "Pneumonia", "Support Devices"]].apply(pd.to_numeric, errors="coerce")
    finding = pd.Series("", index=table.index)
    clear = marks["No Finding"] == _POSITIVE
    finding[clear] = "No Finding"
    finding[clear & (marks["Support Devices"] == _POSITIVE)] = "No Finding/support devices"
    finding[marks["Pneumonia"] == _UNCERTAIN] = "Pneumonia/uncertain"
    finding[marks["Pneumonia"] == _POSITIVE] = "Pneumonia"
    return finding


COLLECTIONS = {
    "chexpert": Collection(
        title="CheXpert",
        home="https://stanfordmlgroup.github.io/competitions/chexpert/",
        read=_read,
        labels={"No Finding": "normal", "Pneumonia": "pneumonia", "Pneumonia/uncertain": ""},
        parts=_PARTS,
    ),
}
