"""BrixIA COVID-19: radiographs of COVID-19 patients with a severity score, as DICOM."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from isnet_bench.data.builders.base import Collection, find, read_table

# The data are offered with a folder data/ around them, too.
_METADATA = ("metadata_global_v2.csv", "data/metadata_global_v2.csv", "metadata_global_v1.csv")
_COLUMNS = ("Filename", "Subject", "BrixiaScoreGlobal")


def _read(folder: Path) -> pd.DataFrame:
    path = find(folder, _METADATA)
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        separator = ";" if ";" in file.readline() else ","
    table = read_table(path, _COLUMNS, separator)
    images = path.parent.relative_to(folder) / "dicom_clean"
    score = pd.to_numeric(table["BrixiaScoreGlobal"], errors="coerce")
    return pd.DataFrame(
        {
            "image": [(images / name).as_posix() for name in table["Filename"]],
            "patient": table["Subject"],
            "finding": score.eq(0).map({True: "COVID-19/score 0", False: "COVID-19"}),
            # The metadata do not say which, but by the collection's description all are AP or PA.
            "view": "frontal",
        }
    )


COLLECTIONS = {
    "brixia": Collection(
        title="BrixIA COVID-19",
        home="https://brixia.github.io",
        read=_read,
        labels={"COVID-19": "covid19"},
    ),
}
