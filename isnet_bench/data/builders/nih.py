"""NIH ChestX-ray14: frontal radiographs with findings mined from the reports."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from isnet_bench.data.builders.base import Collection, find, index_files, read_table, records
from isnet_bench.io.errors import BenchError

_METADATA = tuple(f"{inner}Data_Entry_2017{version}.csv" for inner in ("", "labels/") for version in ("_v2020", ""))
_COLUMNS = ("Image Index", "Finding Labels", "Patient ID", "View Position")
_PARTS = ("train_val", "test")


def _read(folder: Path) -> pd.DataFrame:
    path = find(folder, _METADATA)
    table = read_table(path, _COLUMNS)
    # As unpacked: images/, or images_001/images/ and so on.
    files = index_files([inner for inner in folder.glob("images*") if inner.is_dir()], "*.png", folder)
    images = [files.get(name, f"images/{name}") for name in table["Image Index"]]
    finding = table["Finding Labels"].map(_finding)
    parts = table["Image Index"].map(_parts(path.parent)).fillna("")
    return records(images, table["Patient ID"], finding, table["View Position"], "other").assign(part=parts)


def _finding(text: str) -> str:
    findings = text.split("|")
    if "Pneumonia" in findings:
        return "Pneumonia" if len(findings) == 1 else "Pneumonia/with others"
    return text


def _parts(folder: Path) -> dict[str, str]:
    parts: dict[str, str] = {}
    for part in _PARTS:
        path = folder / f"{part}_list.txt"
        try:
            names = path.read_text(encoding="utf-8").split() if path.is_file() else []
        except (OSError, ValueError) as error:
            raise BenchError(f"{path} cannot be read ({error})") from error
        parts.update(dict.fromkeys(names, part))
    return parts


COLLECTIONS = {
    "nih": Collection(
        title="NIH ChestX-ray14",
        home="https://nihcc.app.box.com/v/ChestXray-NIHCC",
        read=_read,
        labels={"No Finding": "normal", "Pneumonia": "pneumonia"},
        parts=_PARTS,
    ),
}
