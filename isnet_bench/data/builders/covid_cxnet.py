"""COVID-CXNet: radiographs of COVID-19 patients, gathered from journals, case reports and social media."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from isnet_bench.data.builders.base import Collection, find, read_table, records

_COLUMNS = ("filename", "patient_id", "age", "view", "label", "pcr_test", "opacification")
_ADULT_YEARS = 18


def _read(folder: Path) -> pd.DataFrame:
    table = read_table(find(folder, ["metadata.csv"]), _COLUMNS)
    finding = table["label"].copy()
    # Where several hold, the last counts.
    finding[table["opacification"] == "0"] = table["label"] + "/no opacity"
    finding[table["pcr_test"] == "negative"] = table["label"] + "/PCR negative"
    finding[pd.to_numeric(table["age"], errors="coerce") < _ADULT_YEARS] = table["label"] + "/child"
    images = "chest_xray_images/covid19/" + table["filename"]
    # By its description the collection holds frontal views only.
    return records(images, table["patient_id"], finding, table["view"], "frontal")


COLLECTIONS = {
    "covid_cxnet": Collection(
        title="COVID-CXNet",
        home="https://github.com/armiro/COVID-CXNet",
        read=_read,
        labels={"COVID-19": "covid19"},
    ),
}
