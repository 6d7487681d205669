"""What a collection is to the builders, and how its metadata files are read."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from isnet_bench.io.errors import BenchError


@dataclass(frozen=True)
class Collection:
    """A published collection of chest X-rays or photographs.

    Attributes
    ----------
    title, home : str
        Its name, and where to get it.
    read : callable
        Takes the collection's folder; returns one row for each image that the metadata list, with the columns
        image (path relative to the folder), patient ("" where nobody is known to be shown twice), finding, and
        optionally view (see `view`), part (which of ``parts`` the collection counts the image to), split (train, val,
        test_iid or test_ood, the collection's own), group (an attribute besides the label) and mask (tuple of paths
        relative to the folder, none, one, or several that are to be united). Images need not be there; masks are. Its
        errors lack the remedy, which is the same for all: `remedy`.
    labels : mapping or None
        Finding -> label; "" leaves the image out. A finding is a path, ``Pneumonia/Viral/SARS``: the longest
        beginning that is listed counts. Findings that are not listed are left out. None: each is its own label.
    parts : tuple of str
        Names of the parts into which the collection itself is divided, without a patient in two of them.
    foreground : callable or None
        What of a mask's stored values, palette indices or grey values uint8 (H, W), is foreground, bool (H, W). Masks
        are written anew, then; None: they are used as they are.
    """

    title: str
    home: str
    read: Callable[[Path], pd.DataFrame]
    labels: Mapping[str, str] | None
    parts: tuple[str, ...] = ()
    foreground: Callable[[np.ndarray], np.ndarray] | None = None

    @property
    def remedy(self) -> str:
        """What to do where something of the collection is missing."""
        return f"get {self.title} from {self.home} (docs/data.md says how) or name another folder"


def find(folder: Path, names: Sequence[str]) -> Path:
    """Return the first of the files that the folder holds. Raises BenchError if there is none."""
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise BenchError(f"{folder} holds no {' or '.join(names)}")


def read_table(path: Path, columns: Sequence[str], separator: str = ",", optional: Sequence[str] = ()) -> pd.DataFrame:
    """Read some columns of a table as stripped text; an empty cell, or a missing optional column, is "".

    Raises BenchError if the file cannot be read as a table or lacks a column.
    """
    try:
        with warnings.catch_warnings():
            # Rows of some collections end with one more comma than their header, and notes are not always UTF-8.
            warnings.simplefilter("ignore", pd.errors.ParserWarning)
            table = pd.read_csv(
                path,
                sep=separator,
                dtype=str,
                keep_default_na=False,
                index_col=False,
                encoding="utf-8-sig",
                encoding_errors="replace",
            )
    except (OSError, ValueError) as error:
        raise BenchError(f"{path} cannot be read as a table ({' '.join(str(error).split())})") from error
    missing = [column for column in columns if column not in table]
    if missing:
        raise BenchError(f"{path} has no column {', '.join(missing)}; its columns: {', '.join(table.columns)}")
    whole = table.reindex(columns=[*columns, *optional], fill_value="")
    return whole.apply(lambda column: column.str.strip())


def records(image: object, patient: pd.Series, finding: pd.Series, views: pd.Series, unsaid: str) -> pd.DataFrame:
    """Return the records of images; the view is `unsaid` where the metadata say nothing."""
    known = views.map(view).replace("", unsaid)
    return pd.DataFrame({"image": image, "patient": patient, "finding": finding, "view": known})


def photographs(rows: Sequence[Mapping[str, object]]) -> pd.DataFrame:
    """Return the records of photographs of which nobody is known to show the same subject."""
    return pd.DataFrame(rows).assign(patient="")


def view(text: str) -> str:
    """Return "PA", "AP", "AP erect", "AP supine", "other", or "" where nothing is said."""
    words = text.lower().split()
    if not words:
        return ""
    if words[0] == "aps" or (words[0] == "ap" and "supine" in words):
        return "AP supine"
    if words[0] == "ap":
        return "AP erect" if words[1:] == ["erect"] else "AP"
    return "PA" if words[0] == "pa" else "other"


def index_files(folders: Sequence[Path], pattern: str, root: Path) -> dict[str, str]:
    """Return name -> path relative to ``root`` of all files like ``pattern`` in ``folders``, at any depth."""
    found = (path for folder in sorted(folders) for path in sorted(folder.rglob(pattern)))
    return {path.name: path.relative_to(root).as_posix() for path in found}
