"""The runs of an experiment or of a study in one tidy frame, with all that its tables and figures say about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from isnet_bench.config import Axis, Cell, Config
from isnet_bench.io.errors import BenchError
from isnet_bench.layout import Layout
from isnet_bench.reporting import snapshot, style

SCORES = {
    "accuracy": "Accuracy",
    "macro_f1": "Macro F1",
    "balanced_accuracy": "Balanced accuracy",
    "auc": "AUC (one-vs-rest, macro)",
}
"""How right a method is on a test set, and what that is called."""

GROUP_SCORES = ("worst_group_accuracy", "mean_group_accuracy")
"""What is measured on the test sets that have groups."""

VALIDATION = "val"
"""The set by whose images candidates are chosen."""

_MEASURED = [*SCORES, *GROUP_SCORES, "background_relevance", "background_area", "images", "loss"]
_OF_RUNS = ["train_seconds", "prediction_changes", "explainer", "oracle", "family"]


@dataclass(frozen=True)
class Runs:
    """All runs of one experiment or study.

    Attributes
    ----------
    name, title, data, stand_in
        What it is called, the title of its data, and whether these stand in for others.
    score : str
        The one of `SCORES` that tables for people and figures show.
    classes, seeds, sets : tuple
        Names of the classes, seeds in the order of the configuration, test sets in that of the data set; the first is
        `VALIDATION` where a study chooses by validation images, and may be the only one.
    looks, labels : mapping
        Look in figures and label of each row, in the order of tables and figures.
    cells, axes : tuple
        What was run, and what a study varies. Of an experiment each row has one cell, with no values.
    gallery, gallery_set
        The rows whose heatmaps are drawn, and the test set of which these are.
    frame : DataFrame
        One row for each cell, seed and test set, in the order of `cells` and `sets`: cell (its place), method (the row
        that takes part), seed, set, those of `SCORES`, those of `GROUP_SCORES` (NaN: no groups), low and high (95 %
        interval of `score` over test images; NaN: none), background_relevance, background_area, prediction_changes
        (fractions of 1; NaN: none), images, loss (of validation images), train_seconds, explainer, oracle, family.
    folder : Path
        The snapshot that all this is from.
    """

    name: str
    title: str
    data: str
    stand_in: bool
    score: str
    classes: tuple[str, ...]
    seeds: tuple[int, ...]
    sets: tuple[str, ...]
    looks: Mapping[str, style.Look]
    labels: Mapping[str, str]
    cells: tuple[Cell, ...]
    axes: tuple[Axis, ...]
    gallery: tuple[str, ...]
    gallery_set: str
    frame: pd.DataFrame
    folder: Path

    @property
    def heading(self) -> str:
        """Title of tables and figures; begins with a warning when other data stand in for the real ones."""
        return f"STAND-IN DATA: {self.title}" if self.stand_in else self.title

    @property
    def repeats(self) -> str:
        """The number of seeds in words."""
        return "1 seed" if len(self.seeds) == 1 else f"{len(self.seeds)} seeds"

    @property
    def grouped(self) -> tuple[str, ...]:
        """The test sets that have groups."""
        return tuple(self.frame["set"][self.frame[GROUP_SCORES[0]].notna()].unique())

    def of_methods(self, column: str) -> dict:
        """Return for each method what a column of the frame says in all of its rows."""
        return self.frame.drop_duplicates("method").set_index("method")[column].to_dict()

    @property
    def explainer(self) -> str:
        """What explained the most methods."""
        return Counter(self.of_methods("explainer").values()).most_common(1)[0][0]

    @property
    def exceptions(self) -> dict[str, str]:
        """The methods that another explainer explained, and its name."""
        return {row: name for row, name in self.of_methods("explainer").items() if name != self.explainer}

    @property
    def oracles(self) -> list[str]:
        """The methods that see the masks of test images."""
        return [row for row, oracle in self.of_methods("oracle").items() if oracle]

    def table(self, name: str) -> pd.DataFrame:
        """Return what a table of the snapshot has of an experiment, in the order of the frame, rows being methods."""
        found = snapshot.read(self.folder, {self.name}, [name]).tables.get(name, pd.DataFrame(columns=snapshot.KEY))
        parts = dict(list(found.rename(columns={"row": "method"}).groupby(["method", "seed"], sort=False)))
        wanted = list(product(self.looks, self.seeds))
        _check(self.folder / name, [(self.name, *key) for key in wanted if key not in parts], "--experiment", self.name)
        return pd.concat([parts[key] for key in wanted], ignore_index=True)


def cells(cfg: Config, name: str) -> tuple[Cell, ...]:
    """Return what is run for an experiment or a study."""
    if name in cfg.studies:
        return cfg.cells(name)
    return tuple(Cell(name, row, row, ()) for row in cfg.experiment(name).rows)


def seeds(cfg: Config, name: str) -> tuple[int, ...]:
    """Return the seeds of an experiment or a study."""
    return cfg.study_seeds(name) if name in cfg.studies else cfg.experiment_seeds(name)


def source(results: Path, name: str) -> Path:
    """Return where an experiment's or a study's runs are: collected below some results, or in a published snapshot."""
    return results if snapshot.experiments(results) else Layout(results).collected(name)


def read(cfg: Config, name: str, results: Path) -> Runs:
    """Read the runs of an experiment or a study from collected results, or from a published snapshot.

    The configuration says which runs belong to it, what it is called, and what its rows look like. Raises BenchError
    if the snapshot is missing or damaged, or lacks a run.
    """
    folder, study = source(Path(results), name), cfg.studies.get(name)
    found = cells(cfg, name)
    if not found:
        raise BenchError(f"experiment {name} has no methods to report on; name some in the configuration")
    base = cfg.experiment(found[0].experiment)
    rows = cfg.study_rows(name) if study else base.rows
    looks = style.row_looks(rows)
    found = _ordered(found, list(looks))
    wanted = {
        (cell.experiment, cell.row, seed): (place, cell.source)
        for place, cell in enumerate(found)
        for seed in seeds(cfg, name)
    }
    kept = snapshot.read(folder, {cell.experiment for cell in found}, ["runs.csv", "scores.csv", "history.parquet"])
    runs = kept.tables.get("runs.csv", pd.DataFrame(columns=snapshot.KEY)).set_index(snapshot.KEY)
    _check(folder, [key for key in wanted if key not in runs.index], "--study" if study else "--experiment", name)
    scores = kept.tables["scores.csv"]
    if study and study.select:
        scores = _validated(scores, kept.tables["history.parquet"], cfg)
    frame = _frame(scores.join(runs[_OF_RUNS], on=snapshot.KEY), wanted, base.score)
    first, sets = runs.loc[next(iter(wanted))], tuple(frame["set"].unique())
    return Runs(
        name=name,
        title=(study.title if study else base.title) or name,
        data=first["data"],
        stand_in=bool(first["stand_in"]),
        score=base.score,
        classes=tuple(kept.data[found[0].experiment]["classes"]),
        seeds=seeds(cfg, name),
        sets=sets,
        looks=looks,
        labels={row: rows[row].label for row in looks},
        cells=found,
        axes=cfg.axes(name) if study else (),
        gallery=tuple(row for row in looks if base.gallery is None or row in base.gallery),
        gallery_set=base.gallery_set or sets[0],
        frame=frame,
        folder=folder,
    )


def _ordered(found: tuple[Cell, ...], rows: list[str]) -> tuple[Cell, ...]:
    """Combinations of values as the configuration has them, and within each the rows as figures have them."""
    values = list(dict.fromkeys(map(_ids, found)))
    return tuple(sorted(found, key=lambda cell: (values.index(_ids(cell)), rows.index(cell.source)))) if rows else found


def _ids(cell: Cell) -> tuple[str, ...]:
    return tuple(value.id for value in cell.values)


def _validated(scores: pd.DataFrame, history: pd.DataFrame, cfg: Config) -> pd.DataFrame:
    """Scores on validation images at the epoch that the configuration keeps; training is the same whichever it is."""
    epochs = {key: group.to_dict("records") for key, group in history.groupby(snapshot.KEY, sort=False)}
    scores = scores.copy()
    for place, *key in scores.loc[scores["set"] == VALIDATION, snapshot.KEY].itertuples(name=None):
        row = cfg.row(*key[:2]).training.kept(epochs[tuple(key)])
        scores.loc[place, ["accuracy", "loss"]] = row["val_accuracy"], row["val_loss"]
    return scores


def _frame(scores: pd.DataFrame, wanted: Mapping[tuple, tuple[int, str]], score: str) -> pd.DataFrame:
    parts = dict(list(scores.groupby(snapshot.KEY, sort=False)))
    frame = pd.concat(
        [parts[key].assign(cell=place, method=method) for key, (place, method) in wanted.items()], ignore_index=True
    )
    bounds = {"low": frame.get(f"{score}_low", np.nan), "high": frame.get(f"{score}_high", np.nan)}
    return frame.reindex(columns=["cell", "method", "seed", "set", *_MEASURED, *_OF_RUNS]).assign(**bounds)


def _check(where: Path, lost: list[tuple[str, str, int]], option: str, name: str) -> None:
    for experiment, row, seed in lost[:1]:
        raise BenchError(
            f"{where} has no run of {experiment}, {row} with seed {seed}; collect the finished runs again: "
            f"python -m isnet_bench collect --config YOUR.yaml {option} {name}"
        )
