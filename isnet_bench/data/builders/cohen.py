"""The COVID-19 Image Data Collection of Cohen et al., and two collections that took over the form of its metadata.

Cohen: radiographs (and CT) from publications and case reports. Actualmed: those of one provider, with the outcome of
the tests. Figure 1: a few dozen from a network of physicians.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from isnet_bench.data.builders.base import Collection, find, index_files, read_table, records

_COLUMNS = ("patientid", "finding", "view", "modality")


def _metadata(folder: Path, *more: str) -> pd.DataFrame:
    table = read_table(find(folder, ["metadata.csv"]), (*_COLUMNS, *more))
    return table[table["modality"] == "X-ray"]


def _first(findings: pd.Series) -> pd.Series:
    return findings.str.split(",").str[0].str.strip()


def _cohen(folder: Path) -> pd.DataFrame:
    table = _metadata(folder, "folder", "filename")
    # Not said for a radiograph means not known here: some are lateral.
    images = table["folder"] + "/" + table["filename"]
    return records(images, table["patientid"], table["finding"], table["view"], "other")


def _actualmed(folder: Path) -> pd.DataFrame:
    table = _metadata(folder, "imagename")
    # A finding is inconclusive where it is empty.
    images = "images/" + table["imagename"]
    return records(images, table["patientid"], _first(table["finding"]), table["view"], "other")


def _figure1(folder: Path) -> pd.DataFrame:
    table = _metadata(folder)
    # Files are named by the id, some .jpg and some .png.
    files = {Path(name).stem: path for name, path in index_files([folder / "images"], "COVID-*.*", folder).items()}
    images = [files.get(name, f"images/{name}.jpg") for name in table["patientid"]]
    # A letter behind the number counts the images of one patient: COVID-00003a, COVID-00003b.
    patients = table["patientid"].str.replace(r"(?<=\d)[a-z]$", "", regex=True)
    return records(images, patients, _first(table["finding"]), table["view"], "frontal")


COLLECTIONS = {
    "actualmed": Collection(
        title="the Actualmed COVID-19 dataset",
        home="https://github.com/agchung/Actualmed-COVID-chestxray-dataset",
        read=_actualmed,
        labels={"COVID-19": "covid19", "No finding": "normal"},
    ),
    "cohen": Collection(
        title="the COVID-19 Image Data Collection",
        home="https://github.com/ieee8023/covid-chestxray-dataset",
        read=_cohen,
        labels={"Pneumonia/Viral/COVID-19": "covid19", "Pneumonia": "pneumonia", "No Finding": "normal"},
    ),
    "figure1": Collection(
        title="the Figure 1 COVID-19 dataset",
        home="https://github.com/agchung/Figure1-COVID-chestxray-dataset",
        read=_figure1,
        labels={"COVID-19": "covid19", "Pneumonia": "pneumonia", "No finding": "normal"},
    ),
}
