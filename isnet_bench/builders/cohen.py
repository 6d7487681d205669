"""COVID-19 Image Data Collection of Cohen et al.: radiographs (and CT) from publications and case reports."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from isnet_bench.builders.base import Collection, find, read_table, view

__all__ = ["COLLECTION"]

_COLUMNS = ("patientid", "finding", "view", "modality", "folder", "filename")


def _read(folder: Path) -> pd.DataFrame:
    table = read_table(find(folder, ["metadata.csv"]), _COLUMNS)
    table = table[table["modality"] == "X-ray"]
    return pd.DataFrame(
        {
            "image": table["folder"] + "/" + table["filename"],
            "patient": table["patientid"],
            "finding": table["finding"],
            # Not said for a radiograph means not known here: some are lateral.
            "view": table["view"].map(view).replace("", "other"),
        }
    )


COLLECTION = Collection(
    title="the COVID-19 Image Data Collection",
    home="https://github.com/ieee8023/covid-chestxray-dataset",
    read=_read,
    labels={"Pneumonia/Viral/COVID-19": "covid19", "Pneumonia": "pneumonia", "No Finding": "normal"},
)
