"""Actualmed COVID-19 Chest X-ray Dataset Initiative: radiographs of one provider, with the outcome of the tests."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from isnet_bench.builders.base import Collection, find, read_table, view

__all__ = ["COLLECTION"]

_COLUMNS = ("patientid", "finding", "view", "modality", "imagename")


def _read(folder: Path) -> pd.DataFrame:
    table = read_table(find(folder, ["metadata.csv"]), _COLUMNS)
    table = table[table["modality"] == "X-ray"]
    return pd.DataFrame(
        {
            "image": "images/" + table["imagename"],
            "patient": table["patientid"],
            # Inconclusive where empty.
            "finding": table["finding"].str.split(",").str[0].str.strip(),
            "view": table["view"].map(view).replace("", "other"),
        }
    )


COLLECTION = Collection(
    title="the Actualmed COVID-19 dataset",
    home="https://github.com/agchung/Actualmed-COVID-chestxray-dataset",
    read=_read,
    labels={"COVID-19": "covid19", "No finding": "normal"},
)
