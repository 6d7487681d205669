"""Gathers the finished runs of an experiment or of a study into a snapshot, and checks that they belong together."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from isnet_bench import layout as places
from isnet_bench.config import CLASSIFIER, PLAIN, Config, Row
from isnet_bench.io.errors import BenchError
from isnet_bench.io.files import load_json, reading, verify
from isnet_bench.layout import Layout
from isnet_bench.reporting import snapshot
from isnet_bench.reporting.runs import cells, seeds

_PREDICTED = ["index", "label", "prediction"]
_RECORDED = ("train_seconds", "seconds", "epochs", "best_epoch", "parameters", "started", "git_commit", "git_dirty")
_Share = Annotated[float, Field(ge=0, le=1)]
_Read = TypeVar("_Read")


class _Record(BaseModel):
    """Part of a ``metrics.json``; intervals and what else it has are allowed, but no number that is not finite."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)


class _TestSet(_Record):
    # None: the AUC where a class has no image; relevance where LRP finds none or has no rule for the network.
    accuracy: _Share
    macro_f1: _Share
    balanced_accuracy: _Share
    auc: _Share | None
    background_relevance: _Share | None
    background_area: _Share
    images: int = Field(ge=1)
    per_class: tuple[dict[str, float | None], ...]
    confusion: tuple[tuple[int, ...], ...]
    # Unset: the test set has no groups.
    worst_group_accuracy: _Share | None = None
    mean_group_accuracy: _Share | None = None
    per_group: tuple[dict[str, str | float], ...] = ()


class _Metrics(_Record):
    data: str
    stand_in: bool
    row: str
    seed: int
    explainer: str
    # None: no two test sets show the same foregrounds.
    prediction_changes: _Share | None
    background_changes: dict[str, _Share] = {}
    # None: no validation image or no training image has a mask.
    swap_changes: _Share | None = None
    # Of each class; None: the numbers are older than this key.
    training_masks: tuple[int, ...] | None = None
    # Digests of what belongs to these numbers.
    files: dict[str, str] = {}
    sets: dict[str, _TestSet] = Field(min_length=1)


@dataclass(frozen=True)
class _Run:
    """A finished run, as its folder has it; what was only trained has no metrics."""

    experiment: str
    row: str
    seed: int
    folder: Path
    settings: Row
    tested: bool

    @property
    def key(self) -> dict[str, Any]:
        return dict(zip(snapshot.KEY, (self.experiment, self.row, self.seed), strict=True))

    @cached_property
    def record(self) -> dict[str, Any]:
        found = self.read(places.RECORD, "train", load_json)
        other = [f"{name} {found[name]}" for name, value in self.key.items() if found.get(name, value) != value]
        if other:
            raise BenchError(f"{self.folder / places.RECORD} belongs to {', '.join(other)}: {self.anew}")
        verify(self.folder, found.get("files", {}), self.anew)
        return found

    @cached_property
    def metrics(self) -> _Metrics | None:
        if not self.tested:
            return None
        found = self.read(places.METRICS, "evaluate", lambda path: _Metrics.model_validate(load_json(path)))
        if (found.row, found.seed) != (self.row, self.seed):
            path = self.folder / places.METRICS
            raise BenchError(f"{path} belongs to {found.row} with seed {found.seed}; {self.again('evaluate')}")
        trained = self.record.get("files", {})
        if {name: found.files.get(name) for name in trained} != trained:
            raise BenchError(f"{self.folder / places.METRICS} belongs to other weights; {self.again('evaluate')}")
        verify(self.folder, found.files, self.again("evaluate"))
        return found

    @property
    def sets(self) -> list[str]:
        return list(self.metrics.sets) if self.metrics else ["val"]

    @cached_property
    def history(self) -> pd.DataFrame:
        return self.read(places.HISTORY, "train", pd.read_csv).assign(**self.key)

    @cached_property
    def predictions(self) -> pd.DataFrame:
        columns = ["set", *_PREDICTED]
        found = self.read(places.PREDICTIONS, "evaluate", lambda path: pd.read_parquet(path, columns=columns))
        if list(found["set"].unique()) != self.sets:
            path = self.folder / places.PREDICTIONS
            raise BenchError(f"{path} has other test sets than {places.METRICS}; {self.again('evaluate')}")
        return found.astype(dict.fromkeys(_PREDICTED, "int32")).assign(**self.key)

    def heatmaps(self, test_set: str) -> dict[str, np.ndarray]:
        """Read the stored examples of a test set."""

        def load(path: Path) -> dict[str, np.ndarray]:
            with np.load(path) as stored:
                return {key: stored[f"{test_set}_{key}"] for key in (*snapshot.GALLERY, "relevance")}

        return self.read(places.HEATMAPS, "evaluate", load)

    def read(self, name: str, verb: str, how: Callable[[Path], _Read]) -> _Read:
        """Read a file, which a verb makes."""
        with reading(self.folder / name, self.again(verb)):
            return how(self.folder / name)

    @property
    def anew(self) -> str:
        """How to make all of this run again."""
        return f"delete {self.folder}, and run the workflow again"

    def again(self, verb: str) -> str:
        """The command that makes a file of this run."""
        return (
            f"make it with: python -m isnet_bench {verb} --config YOUR.yaml --experiment {self.experiment} "
            f"--row {self.row} --seed {self.seed}"
        )


def collect(cfg: Config, name: str, root: Path, out: Path) -> None:
    """Write the snapshot of an experiment's or a study's finished runs, which lie below `root`.

    The gallery is that of experiments only; what a study chooses by validation images was not tested.

    Raises BenchError if a run is missing or damaged, or if runs were made with other data or settings. Nothing is
    written then.
    """
    layout, study = Layout(Path(root)), cfg.studies.get(name)
    runs = [
        _Run(*place, layout.run(*place), cfg.row(*place[:2]), tested=not study or study.tested)
        for cell in cells(cfg, name)
        for place in [(cell.experiment, cell.row, seed) for seed in seeds(cfg, name)]
    ]
    if not runs:
        raise BenchError(f"experiment {name} has no methods to report on; name some in the configuration")
    for run in runs:
        _check(run, runs[0], cfg.catalog.methods[run.settings.method].code)
    trained = [*runs, *_classifiers(runs, layout)]
    mediated = [run for run in runs if (run.folder / places.MEDIATION).is_file()]
    ranges = [run.record["range"] for run in runs if run.record["range"]]
    tables = {
        "runs.csv": pd.DataFrame([_described(run, cfg) for run in trained]),
        "scores.csv": pd.DataFrame([row for run in runs for row in _scores(run, bool(study and study.select))]),
        "ranges.csv": pd.DataFrame(_ranges(ranges)),
        "history.parquet": _joined(run.history for run in trained),
        "classes.parquet": pd.DataFrame([row for run in runs if run.tested for row in _classes(run)]),
        "groups.parquet": pd.DataFrame([row for run in runs if run.tested for row in _groups(run)]),
        "predictions.parquet": _joined(run.predictions for run in runs if run.tested),
        "mediation.parquet": _joined(
            run.read(places.MEDIATION, "mediate", pd.read_csv).assign(**run.key) for run in mediated
        ),
    }
    environments = dict(_environment(record) for record in [*(run.record for run in trained), *ranges])
    data = {run.experiment: run.record["data"] for run in runs}
    gallery = {} if study else _gallery(cfg, name, runs)
    snapshot.write(snapshot.Snapshot(tables, environments, data, gallery), Path(out))


def _classifiers(runs: Collection[_Run], layout: Layout) -> Iterator[_Run]:
    """Return the ordinary classifiers whose heatmaps gave the relevance ranges of these runs."""
    plain = Row(id=CLASSIFIER, method=PLAIN, label=CLASSIFIER, params={})
    for experiment, seed in dict.fromkeys((run.experiment, run.seed) for run in runs):
        folder = layout.range_classifier(experiment, seed)
        if (folder / places.RECORD).is_file():
            yield _Run(experiment, CLASSIFIER, seed, folder, plain, tested=False)


def other_settings(row: Row, record: Mapping[str, Any], tested: bool = True) -> str | None:
    """Return of what kind the settings are in which a record of a training differs from a row; None: it is the row's.

    Which epoch is kept is of no account to what was not tested: the history has what validation said of all.
    """
    training = row.training.model_dump(mode="json", exclude=None if tested else {"epoch"})
    for kind, values in {"training": training, "hyperparameters": row.params}.items():
        if any(record[kind].get(key, value) != value for key, value in values.items()):
            return kind
    return None


def _check(run: _Run, first: _Run, code: str) -> None:
    """Runs must have the settings of the configuration, their method's code, and the first one's data and test sets."""
    kind = other_settings(run.settings, run.record, run.tested)
    if kind:
        raise BenchError(f"{run.folder} was trained with another {kind} than configured; {run.again('train')}")
    if run.record.get("source", code) != code:
        raise BenchError(f"{run.folder} was trained with other code of its method than there is now: {run.anew}")
    here, there = (
        {"data": one.record["data"]["title"], "stand_in": one.record["data"]["stand_in"], "test sets": one.sets}
        for one in (run, first)
    )
    for kind, value in here.items():
        if value != there[kind]:
            raise BenchError(
                f"{run.folder} has the {kind} {value!r}, but {first.folder} has {there[kind]!r}; such runs "
                f"cannot share a table: {run.anew}"
            )


def _described(run: _Run, cfg: Config) -> dict[str, Any]:
    record, card = run.record, cfg.catalog.methods[run.settings.method]
    tested = {}
    if run.metrics:
        tested = {key: getattr(run.metrics, key) for key in ("explainer", "prediction_changes", "swap_changes")}
        tested["background_changes"] = _text(run.metrics.background_changes)
    return {
        **run.key,
        "method": run.settings.method,
        "label": run.settings.label,
        "family": card.family,
        "oracle": card.oracle,
        "data": record["data"]["title"],
        "stand_in": record["data"]["stand_in"],
        **(tested or dict.fromkeys(("explainer", "prediction_changes", "swap_changes", "background_changes"))),
        **{key: record[key] for key in _RECORDED},
        "environment": _environment(record)[0],
        "range": _id(record["range"]) if record["range"] else None,
        "hyperparameters": _text(record["hyperparameters"]),
        "training": _text(record["training"]),
    }


def _scores(run: _Run, validated: bool) -> Iterator[dict[str, Any]]:
    """Return a run's rows of ``scores.csv``: one for the validation images, if asked for, and one for each test set."""
    if validated:
        best = run.history.set_index("epoch").loc[run.record["best_epoch"]]
        images = run.record["data"]["splits"]["val"]
        yield {**run.key, "set": "val", "accuracy": best["val_accuracy"], "loss": best["val_loss"], "images": images}
    for name, found in run.metrics.sets.items() if run.metrics else ():
        values = found.model_dump(exclude={"per_class", "confusion", "per_group"}, exclude_unset=True)
        for score in [key.removesuffix("_interval") for key in values if key.endswith("_interval")]:
            values[f"{score}_low"], values[f"{score}_high"] = values.pop(f"{score}_interval") or (None, None)
        yield {**run.key, "set": name, **values}


def _classes(run: _Run) -> Iterator[dict[str, Any]]:
    masks = run.metrics.training_masks
    for name, found in run.metrics.sets.items():
        for place, (scores, predicted) in enumerate(zip(found.per_class, found.confusion, strict=True)):
            told = {} if masks is None else {"training_masks": masks[place]}
            yield {**run.key, "set": name, "class": place, **scores, "predicted": predicted, **told}


def _groups(run: _Run) -> Iterator[dict[str, Any]]:
    for name, found in run.metrics.sets.items():
        for group in found.per_group:
            yield {**run.key, "set": name, **group}


def _ranges(measured: Collection[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Return the relevance ranges that runs were trained with: a row for each of their parts."""
    for key, found in {_id(one): one for one in measured}.items():
        shared = {name: found[name] for name in ("experiment", "seed", "images", "git_commit", "git_dirty")}
        shared |= {f"classifier_{name}": value for name, value in found["classifier"].items()}
        shared["environment"] = _environment(found)[0]
        explanation = ", ".join([found["method"], *(f"{name} {value}" for name, value in found["explained"].items())])
        for layer, parts in found["ranges"].items():
            for place, part in enumerate(parts):
                yield {"range": key, "explanation": explanation, "layer": layer, "part": place, **part, **shared}


def _gallery(cfg: Config, name: str, runs: Collection[_Run]) -> dict[str, np.ndarray]:
    """Return the examples of the first seed of the gallery's rows, in few bits."""
    experiment, first = cfg.experiment(name), next(iter(runs))
    test_set = experiment.gallery_set or first.sets[0]
    if test_set not in first.sets:
        known = ", ".join(first.sets)
        raise BenchError(f"experiments.{name}.gallery_set: no test set {test_set!r}; there are: {known}")
    chosen = [run for run in runs if run.seed == first.seed and run.row in (experiment.gallery or experiment.rows)]
    found = {} if experiment.gallery == () else {run.row: run.heatmaps(test_set) for run in chosen}
    gallery: dict[str, np.ndarray] = {}
    for row, examples in found.items():
        if not np.array_equal(examples["images"], found[chosen[0].row]["images"]):
            raise BenchError(f"{row} and {chosen[0].row} stored heatmaps of different images; evaluate both again")
        images = examples["images"] if examples["images"].dtype == np.uint8 else np.rint(255 * examples["images"])
        gallery |= {
            f"{name}/images": images.astype(np.uint8),
            f"{name}/masks": examples["masks"].astype(np.uint8),
            f"{name}/labels": examples["labels"].astype(np.int16),
            f"{name}/{row}": _scaled(examples["relevance"].astype(np.float32)),
        }
    return gallery


def _scaled(relevance: np.ndarray) -> np.ndarray:
    """Figures show shares of an image's relevance, so that each heatmap may have a unit of its own."""
    largest = np.abs(relevance).max(axis=(1, 2, 3), keepdims=True)
    return np.divide(relevance, largest, out=np.zeros_like(relevance), where=largest > 0).astype(np.float16)


def _joined(tables: Iterator[pd.DataFrame]) -> pd.DataFrame:
    found = list(tables)
    table = pd.concat(found, ignore_index=True) if found else pd.DataFrame()
    return table[sorted(table, key=lambda column: column not in snapshot.KEY)]


def _environment(record: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    environment = {key: record[key] for key in ("versions", "hardware") if key in record}
    return _id(environment), environment


def _id(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]


def _text(content: Any) -> str:
    return json.dumps(content, separators=(",", ":"))
