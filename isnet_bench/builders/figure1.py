"""Figure 1 COVID-19 Chest X-ray Dataset Initiative: a few dozen radiographs from a network of physicians."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from isnet_bench.builders.base import Collection, find, index_files, read_table, view

__all__ = ["COLLECTION"]

_COLUMNS = ("patientid", "finding", "view", "modality")


def _read(folder: Path) -> pd.DataFrame:
    table = read_table(find(folder, ["metadata.csv"]), _COLUMNS)
    table = table[table["modality"] == "X-ray"]
    # Files are named by the id, some .jpg and some .png.
    files = {Path(name).stem: path for name, path in index_files([folder / "images"], "COVID-*.*", folder).items()}
    return pd.DataFrame(
        {
            "image": [files.get(name, f"images/{name}.jpg") for name in table["patientid"]],
            # A letter behind the number counts the images of one patient: COVID-00003a, COVID-00003b.
            "patient": table["patientid"].str.replace(r"(?<=\d)[a-z]$", "", regex=True),
            "finding": table["finding"].str.split(",").str[0].str.strip(),
            "view": table["view"].map(view).replace("", "frontal"),
        }
    )


COLLECTION = Collection(
    title="the Figure 1 COVID-19 dataset",
    home="https://github.com/agchung/Figure1-COVID-chestxray-dataset",
    read=_read,
    labels={"COVID-19": "covid19", "Pneumonia": "pneumonia", "No finding": "normal"},
)
