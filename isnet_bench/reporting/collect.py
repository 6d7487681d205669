"""Read the run folders of one experiment into one tidy table."""

from __future__ import annotations

import json
import zipfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pandas as pd

from isnet_bench import config as configuration
from isnet_bench import methods
from isnet_bench.errors import BenchError
from isnet_bench.files import read_json
from isnet_bench.reporting import style

SCORES = {
    "accuracy": "Accuracy",
    "macro_f1": "Macro F1",
    "balanced_accuracy": "Balanced accuracy",
    "auc": "AUC (one-vs-rest, macro)",
}
"""How right a method is on a test set, and what that is called."""

PREDICTED = ["set", "index", "label", "prediction"]
"""What reporting reads of a run's predictions."""

_FRACTION = {"type": "number", "minimum": 0, "maximum": 1}
_METRICS_SCHEMA = {
    "type": "object",
    "required": ["data", "stand_in", "method", "seed", "explainer", "sets", "prediction_changes", "train_seconds"],
    "properties": {
        "data": {"type": "string"},
        "stand_in": {"type": "boolean"},
        "method": {"type": "string"},
        "seed": {"type": "integer"},
        "explainer": {"type": "string"},
        # null: no two test sets show the same foregrounds
        "prediction_changes": {**_FRACTION, "type": ["number", "null"]},
        "train_seconds": {"type": "number", "minimum": 0},
        "sets": {
            "type": "object",
            "minProperties": 1,
            "additionalProperties": {
                "type": "object",
                "required": [*SCORES, "per_class", "confusion", "background_relevance", "background_area", "images"],
                "properties": {
                    # null: the AUC where a class has no image
                    **{score: {**_FRACTION, "type": ["number", "null"]} for score in SCORES},
                    "per_class": {"type": "array", "items": {"type": "object"}},
                    "confusion": {"type": "array", "items": {"type": "array"}},
                    # null: LRP finds no relevance, or has no rule for the network
                    "background_relevance": {**_FRACTION, "type": ["number", "null"]},
                    "background_area": _FRACTION,
                    "images": {"type": "integer", "minimum": 1},
                },
            },
        },
    },
}
_KEPT = (*SCORES, "background_relevance", "background_area", "images", "per_class", "confusion")
_RUN_SCHEMA = {
    "type": "object",
    "required": ["data"],
    "properties": {
        "data": {
            "type": "object",
            "required": ["classes"],
            "properties": {"classes": {"type": "array", "minItems": 2, "items": {"type": "string"}}},
        }
    },
}

_METRICS, _RUN = (jsonschema.Draft202012Validator(schema) for schema in (_METRICS_SCHEMA, _RUN_SCHEMA))


@dataclass(frozen=True)
class Runs:
    """All evaluated runs of one experiment.

    ``frame`` has one row per method, seed and test set, methods in the order of the figures, with the columns
    method, label, seed, set, those of `SCORES`, low and high (95 % interval of `score` over test images; NaN: none),
    background_relevance (NaN: none), background_area, prediction_changes (fractions of 1), images, per_class,
    confusion and train_seconds. ``sets`` are the test sets in the order in which
    the data set declares them; ``score`` is the one of `SCORES` that tables for people and figures show;
    ``explainers`` has the name of what explained each method; ``gallery`` are the methods whose heatmaps are drawn, and
    ``gallery_set`` is the test set of which they are;
    ``oracles`` are those that see the masks of test images.
    """

    experiment: str
    title: str
    data: str
    stand_in: bool
    score: str
    explainers: Mapping[str, str]
    classes: tuple[str, ...]
    seeds: tuple[int, ...]
    sets: tuple[str, ...]
    looks: Mapping[str, style.Look]
    gallery: tuple[str, ...]
    gallery_set: str
    oracles: tuple[str, ...]
    frame: pd.DataFrame

    @property
    def heading(self) -> str:
        """Title of tables and figures; begins with a warning when other data stand in for the real ones."""
        return f"STAND-IN DATA: {self.title}" if self.stand_in else self.title

    @property
    def explainer(self) -> str:
        """What explained the most methods."""
        return Counter(self.explainers.values()).most_common(1)[0][0]

    @property
    def exceptions(self) -> dict[str, str]:
        """The methods that another explainer explained, and its name."""
        return {row: name for row, name in self.explainers.items() if name != self.explainer}

    @property
    def repeats(self) -> str:
        """The number of seeds in words."""
        return "1 seed" if len(self.seeds) == 1 else f"{len(self.seeds)} seeds"

    @property
    def labels(self) -> dict[str, str]:
        """Label of each method, in the order of the figures."""
        return dict(self.frame.drop_duplicates("method")[["method", "label"]].to_numpy())


def runs(config: dict[str, Any], experiment: str, results: Path) -> Runs:
    """Read the metrics of every method and seed that a checked configuration names for an experiment.

    Raises
    ------
    BenchError
        If a run is missing or unreadable, or if runs were made on different data.
    """
    entries = configuration.experiment_entries(config, experiment)
    labels = {entry.row: entry.label for entry in entries}
    looks = style.row_looks(entries)
    if not looks:
        raise BenchError(f"experiment {experiment} has no methods to report on; name some in the configuration")
    found = {(row, seed): _metrics(results, experiment, row, seed) for row in looks for seed in config["seeds"]}
    first = next(iter(found.values()))
    for (row, seed), metrics in found.items():
        _check_same_data(first, metrics, folder(results, experiment, row, seed))
    run = _json(folder(results, experiment, *next(iter(found))) / "run.json", _RUN, "train")
    score = config["experiments"][experiment].get("score", "accuracy")
    records = [
        {"method": row, "label": labels[row], "seed": seed, "set": name, **{key: values[key] for key in _KEPT}}
        | dict(zip(("low", "high"), values.get(f"{score}_interval") or (None, None), strict=True))
        | {key: metrics[key] for key in ("prediction_changes", "train_seconds")}
        for (row, seed), metrics in found.items()
        for name, values in metrics["sets"].items()
    ]
    return Runs(
        experiment=experiment,
        title=config["experiments"][experiment]["title"],
        data=first["data"],
        stand_in=first["stand_in"],
        explainers={row: metrics["explainer"] for (row, _), metrics in found.items()},
        score=score,
        classes=tuple(run["data"]["classes"]),
        seeds=tuple(config["seeds"]),
        sets=tuple(first["sets"]),
        looks=looks,
        gallery=_chosen(looks, config["experiments"][experiment].get("gallery")),
        gallery_set=_gallery_set(config, experiment, tuple(first["sets"])),
        oracles=tuple(entry.row for entry in entries if methods.get(entry.method).oracle),
        frame=pd.DataFrame(records).astype(
            dict.fromkeys([*SCORES, "low", "high", "background_relevance", "prediction_changes"], float)
        ),
    )


def _chosen(looks: Mapping[str, style.Look], wanted: list[str] | None) -> tuple[str, ...]:
    return tuple(row for row in looks if wanted is None or row in wanted)


def _gallery_set(config: dict[str, Any], experiment: str, sets: tuple[str, ...]) -> str:
    name = config["experiments"][experiment].get("gallery_set", sets[0])
    if name not in sets:
        raise BenchError(f"experiments.{experiment}.gallery_set: no test set {name!r}; there are: {', '.join(sets)}")
    return name


def folder(results: Path, experiment: str, method: str, seed: int) -> Path:
    """Folder of one run."""
    return results / experiment / method / f"seed{seed}"


def predictions(results: Path, experiment: str, method: str, seed: int, sets: tuple[str, ...]) -> pd.DataFrame:
    """What a run predicted: set, and the integers index, label and prediction; one row per image of a test set.

    Raises
    ------
    BenchError
        If the file is missing or unreadable, or has other test sets.
    """
    path = folder(results, experiment, method, seed) / "predictions.parquet"
    remedy = "evaluate this run again"
    try:
        # Published ones are kept in fewer bits.
        table = pd.read_parquet(path, columns=PREDICTED).astype(dict.fromkeys(PREDICTED[1:], "int64"))
    except FileNotFoundError as error:
        raise BenchError(f"{path} is missing: {remedy}") from error
    except (OSError, ValueError) as error:
        raise BenchError(f"{path} cannot be read ({' '.join(str(error).split())}): {remedy}") from error
    if list(table["set"].unique()) != list(sets):
        raise BenchError(f"{path} has other test sets than metrics.json: {remedy}")
    return table


def heatmaps(results: Path, experiment: str, method: str, seed: int, test_set: str) -> dict[str, np.ndarray]:
    """Stored examples of a test set: images in [0, 1] and relevance (n, C, H, W), masks (n, 1, H, W), labels (n,).

    Raises
    ------
    BenchError
        If the file is missing or unreadable, or has no such test set.
    """
    path = folder(results, experiment, method, seed) / "heatmaps.npz"
    try:
        with np.load(path) as stored:
            found = {key: stored[f"{test_set}_{key}"] for key in ("images", "masks", "relevance", "labels")}
    except FileNotFoundError as error:
        raise BenchError(f"{path} is missing; {_again(path, 'evaluate')}") from error
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise BenchError(f"{path} cannot be read ({error}); {_again(path, 'evaluate')}") from error
    # Published ones are kept in fewer bits.
    found["images"] = found["images"] / (255 if found["images"].dtype == np.uint8 else 1)
    return {key: values if key == "labels" else values.astype(np.float32) for key, values in found.items()}


def gallery(results: Path, runs: Runs) -> dict[str, dict[str, np.ndarray]]:
    """For each row of the gallery the examples that `heatmaps` reads, of the first seed."""
    return {row: heatmaps(results, runs.experiment, row, runs.seeds[0], runs.gallery_set) for row in runs.gallery}


def _metrics(results: Path, experiment: str, method: str, seed: int) -> dict[str, Any]:
    path = folder(results, experiment, method, seed) / "metrics.json"
    metrics = _json(path, _METRICS, "evaluate")
    if (metrics["method"], metrics["seed"]) != (method, seed):
        raise BenchError(
            f"{path} belongs to {metrics['method']} with seed {metrics['seed']}; {_again(path, 'evaluate')}"
        )
    return metrics


def _check_same_data(first: dict[str, Any], other: dict[str, Any], run: Path) -> None:
    for key in ("data", "stand_in"):
        if first[key] != other[key]:
            raise BenchError(
                f"{run / 'metrics.json'} has {key} {other[key]!r} where the first run has {first[key]!r}; "
                "such runs cannot share a table: delete the folder and train it again"
            )
    if list(first["sets"]) != list(other["sets"]):
        raise BenchError(
            f"{run / 'metrics.json'} has the test sets {', '.join(other['sets'])} where the first run has "
            f"{', '.join(first['sets'])}; {_again(run / 'metrics.json', 'evaluate')}"
        )


def _json(path: Path, schema: jsonschema.Draft202012Validator, verb: str) -> dict[str, Any]:
    content = read_json(path, _again(path, verb))
    error = jsonschema.exceptions.best_match(schema.iter_errors(content))
    if error is not None:
        raise BenchError(f"{path} is wrong at {error.json_path}: {error.message}; {_again(path, verb)}")
    try:
        json.dumps(content, allow_nan=False)
    except ValueError as error:
        raise BenchError(f"{path} holds a number that is not finite; {_again(path, verb)}") from error
    return content


def _again(path: Path, verb: str) -> str:
    """The command that makes a file of a run folder, read back from the file's place."""
    experiment, method, seed = path.parts[-4:-1]
    return (
        f"make it with: python -m isnet_bench {verb} --config YOUR.yaml --experiment {experiment} "
        f"--method {method} --seed {seed.removeprefix('seed')}"
    )
