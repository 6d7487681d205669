"""The tidy files that hold finished runs, as `collect` and `publishing` write them: all that reporting reads."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from isnet_bench.io.errors import BenchError
from isnet_bench.io.files import digests, read_json, reading, replacing, verify, write_json

TABLES = (
    "runs.csv",
    "scores.csv",
    "ranges.csv",
    "history.parquet",
    "classes.parquet",
    "groups.parquet",
    "predictions.parquet",
    "mediation.parquet",
)
"""What there is a row for: a run; a run and test set; a part of a relevance range; an epoch; a test set and class; a
test set and group; an image; a change of the background, layer and kind of unit. All but the ranges begin with the
columns `KEY`."""

KEY = ["experiment", "row", "seed"]
"""What names a run."""

GALLERY = ("images", "masks", "labels")
"""What examples are beside their relevance, which has the name of its row."""

_DATA, _ENVIRONMENTS, _EXAMPLES, _DIGESTS = "data.json", "environments.json", "gallery.npz", "digests.json"
_REMEDY = "make it with: python -m isnet_bench collect --config YOUR.yaml, and --experiment or --study with its name"
_TEXT = (
    *("experiment", "row", "method", "label", "family", "set", "data", "explainer"),
    *("range", "environment", "git_commit", "classifier_git_commit"),
)
_WHOLE = ("images_explained", "images_without_relevance")
# An empty cell is the only one that says nothing: a label may be "None".
_read_csv = partial(
    pd.read_csv,
    keep_default_na=False,
    na_values=[""],
    dtype={**dict.fromkeys(_TEXT, "str"), **dict.fromkeys(_WHOLE, "Int64")},
)


@dataclass(frozen=True)
class Snapshot:
    """Finished runs.

    Attributes
    ----------
    tables : dict of str to DataFrame
        By the names in `TABLES`; those without rows are not there.
    environments : dict
        Versions and hardware, by the id that the column environment of the runs has.
    data : dict
        What ``data.json`` of the prepared data says, by experiment.
    gallery : dict of str to ndarray
        ``EXPERIMENT/KEY`` to an array, KEY being one of `GALLERY` or a row; see `examples`.
    """

    tables: Mapping[str, pd.DataFrame]
    environments: Mapping[str, Any]
    data: Mapping[str, Any]
    gallery: Mapping[str, np.ndarray]

    def examples(self, experiment: str) -> dict[str, np.ndarray]:
        """Return the gallery of an experiment.

        Images in [0, 1] (n, C, H, W), masks (n, 1, H, W), labels (n,), and the relevance of each row (n, C, H, W).
        """
        parts = {key.partition("/")[2]: one for key, one in self.gallery.items() if key.startswith(f"{experiment}/")}
        found = {key: one if key == "labels" else one.astype(np.float32) for key, one in parts.items()}
        return found | ({"images": found["images"] / 255} if found else {})


def read(folder: Path, chosen: Collection[str] | None = None, tables: Iterable[str] = TABLES) -> Snapshot:
    """Read a snapshot, or the runs of the chosen experiments alone. Raises BenchError if a file is damaged."""
    data = read_json(folder / _DATA, _REMEDY)
    # Snapshots of before have no digests. What is not among the tables may not be there, unless it was.
    known = read_json(folder / _DIGESTS, _REMEDY) if (folder / _DIGESTS).is_file() else {}
    for name in known:
        if not (folder / name).is_file():
            raise BenchError(f"{folder / name} is missing: {_REMEDY}")
    verify(folder, {name: one for name, one in known.items() if name not in set(TABLES) - set(tables)}, _REMEDY)
    found = {name: _table(folder / name, chosen) for name in tables}
    gallery = {}
    if (folder / _EXAMPLES).is_file():
        with reading(folder / _EXAMPLES, _REMEDY), np.load(folder / _EXAMPLES) as stored:
            gallery = dict(stored)
    return Snapshot(
        tables={name: table for name, table in found.items() if len(table)},
        environments=read_json(folder / _ENVIRONMENTS, _REMEDY),
        data={name: entry for name, entry in data.items() if chosen is None or name in chosen},
        gallery=gallery,
    )


def experiments(folder: Path) -> set[str]:
    """Return the experiments that a folder has runs of; none where it is no snapshot."""
    return set(read_json(folder / _DATA, _REMEDY)) if (folder / _DATA).is_file() else set()


def write(snapshot: Snapshot, folder: Path) -> None:
    """Write a snapshot; a file that it has no content for is removed."""
    # data.json comes after all that it tells of: where it is, the snapshot is whole.
    for name in (_DATA, _DIGESTS, _EXAMPLES):
        (folder / name).unlink(missing_ok=True)
    for name in TABLES:
        table = snapshot.tables.get(name, pd.DataFrame())
        if table.empty:
            (folder / name).unlink(missing_ok=True)
            continue
        with replacing(folder / name) as part:
            if name.endswith(".csv"):
                table.to_csv(part, index=False)
            else:
                table.to_parquet(part, index=False, compression="zstd", compression_level=19)
    if snapshot.gallery:
        with replacing(folder / _EXAMPLES) as part:
            np.savez_compressed(part, **snapshot.gallery)
    write_json(folder / _ENVIRONMENTS, dict(snapshot.environments))
    write_json(folder / _DATA, dict(snapshot.data))
    there = [name for name in (*TABLES, _EXAMPLES, _ENVIRONMENTS, _DATA) if (folder / name).is_file()]
    write_json(folder / _DIGESTS, digests(folder, there))


def concatenate(snapshots: Collection[Snapshot]) -> Snapshot:
    """Return one snapshot of the runs of several."""
    parts = {name: [one.tables[name] for one in snapshots if name in one.tables] for name in TABLES}
    return Snapshot(
        tables={name: pd.concat(tables, ignore_index=True) for name, tables in parts.items() if tables},
        environments={key: entry for one in snapshots for key, entry in one.environments.items()},
        data={key: entry for one in snapshots for key, entry in one.data.items()},
        gallery={key: entry for one in snapshots for key, entry in one.gallery.items()},
    )


def _table(path: Path, chosen: Collection[str] | None) -> pd.DataFrame:
    # Only of runs and scores there is always something.
    if not path.is_file() and path.name not in TABLES[:2]:
        return pd.DataFrame()
    with reading(path, _REMEDY):
        if path.suffix == ".csv":
            table = _read_csv(path)
            return table if chosen is None else table[table["experiment"].isin(chosen)]
        return pd.read_parquet(path, filters=None if chosen is None else [("experiment", "in", set(chosen))])
