"""Chooses among the candidates of each method, by images that are distributed like the training images alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from isnet_bench import candidates, provenance
from isnet_bench import config as configuration
from isnet_bench.errors import BenchError
from isnet_bench.files import read_json, replacing, write_json

__all__ = ["RULE", "choose", "select", "tables"]

RULE = "the first candidate within one standard error of the method's best accuracy on iid validation images"


def select(config: dict[str, Any], results: Path, out: Path) -> None:
    """Compare the trained candidates; write what `tables` writes, and ``out.json``, the record of the choice.

    Parameters and errors are those of `tables`.
    """
    tables(config, results, out)
    record = {"rule": RULE, "tuning": config["tuning"], "versions": provenance.versions(), **provenance.git()}
    out = Path(out)
    write_json(out.parent / f"{out.name}.json", record)


def tables(config: dict[str, Any], results: Path, out: Path) -> None:
    """Compare the trained candidates; write ``out.csv``, ``out.md`` and ``out.yaml``.

    The yaml has what the chosen candidates set, ready for the methods of an experiment. Nothing is read
    of a run but what it measured on its own validation images: no test image is seen.

    Parameters
    ----------
    config : dict
        A checked configuration with a section `tuning`.
    results, out : Path
        Root of the results, and path without suffix.

    Raises
    ------
    BenchError
        If a candidate has not been trained.
    """
    seed = config["tuning"]["seed"]
    table = pd.DataFrame(
        [
            {"method": method, "candidate": place, **_measured(config, Path(results), method, row, place, seed)}
            for method, ids in candidates.rows(config).items()
            for place, row in enumerate(ids, start=1)
        ]
    )
    table["chosen"] = table.groupby("method", sort=False)["val_accuracy"].transform(
        lambda accuracy: np.arange(len(accuracy)) == choose(accuracy, table.loc[accuracy.index, "val_images"].iloc[0])
    )
    chosen = {
        row.method: configuration_of(config, row.method, row.candidate) for row in table[table["chosen"]].itertuples()
    }
    out = Path(out)
    contents = {
        "csv": table.to_csv(index=False, float_format="%.6g"),
        "md": _markdown(config, table),
        "yaml": yaml.safe_dump({"methods": chosen}, sort_keys=False),
    }
    for kind, text in contents.items():
        with replacing(out.parent / f"{out.name}.{kind}") as part:
            part.write_text(text, encoding="utf-8")


def choose(accuracy: Any, images: int) -> int:
    """Return the place of the first accuracy within one standard error of the highest one.

    The one-standard-error rule (Breiman, Friedman, Olshen, Stone, Classification and Regression Trees, 1984, section
    3.4.3): candidates stand in the order of preference, here from the strongest supervision to the weakest, and
    accuracies that `images` images cannot tell apart do not overrule it.

    Parameters
    ----------
    accuracy : array-like
        Share of right predictions of each candidate, in [0, 1].
    images : int
        Number of images behind it; the standard error is that of a binomial share.
    """
    accuracy = np.asarray(accuracy, float)
    best = accuracy.max()
    return int(np.argmax(accuracy >= best - np.sqrt(best * (1 - best) / images) - 1e-12))


def configuration_of(config: dict[str, Any], method: str, place: int) -> dict[str, Any]:
    """Return what a method's candidate sets, places being counted from 1."""
    return dict(config["tuning"]["candidates"][method][place - 1] or {})


def _measured(config: dict[str, Any], results: Path, method: str, row: str, place: int, seed: int) -> dict[str, Any]:
    experiment = candidates.experiment(config)
    folder = results / experiment / row / f"seed{seed}"
    remedy = (
        f"train it with: python -m isnet_bench train --config YOUR.yaml --experiment {experiment} --method {row} "
        f"--seed {seed}"
    )
    run = read_json(folder / "run.json", remedy)
    entry = configuration.method_entry(config, experiment, row)
    for kind, wanted in (("training", entry.training), ("hyperparameters", entry.params)):
        if any(run[kind].get(key) != value for key, value in wanted.items()):
            raise BenchError(f"{folder} was trained with other settings than the configuration has; {remedy}")
    history = pd.read_csv(folder / "history.csv").set_index("epoch").loc[run["best_epoch"]]
    return {
        "settings": candidates.settings(config["tuning"]["candidates"][method][place - 1]),
        "val_accuracy": history["val_accuracy"],
        "val_loss": history["val_loss"],
        "val_images": run["data"]["splits"]["val"],
        "train_seconds": run["train_seconds"],
        "data": run["data"]["title"],
        "stand_in": run["data"]["stand_in"],
    }


def _markdown(config: dict[str, Any], table: pd.DataFrame) -> str:
    warning = "STAND-IN DATA: " if table["stand_in"].any() else ""
    title = config["experiments"][candidates.experiment(config)]["title"]
    caption = (
        f"{warning}{title}. Data: {table['data'].iloc[0]}. Accuracy on {table['val_images'].iloc[0]} iid validation "
        f"images at the epoch of the lowest validation loss, seed {config['tuning']['seed']}. Chosen: {RULE}."
    )
    shown = pd.DataFrame(
        {
            "Method": table["method"],
            "Candidate": table["settings"],
            "Validation accuracy (%)": [f"{100 * value:.1f}" for value in table["val_accuracy"]],
            "Chosen": ["yes" if chosen else "" for chosen in table["chosen"]],
        }
    )
    markdown = shown.to_markdown(
        index=False, colalign=["left", "left", "right", "right", "left"], disable_numparse=True
    )
    return f"{caption}\n\n{markdown}\n"
