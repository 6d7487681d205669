"""Run folders that the tests of reporting write themselves, and what is made of them."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from isnet_bench import config as configuration
from isnet_bench.layout import Layout
from isnet_bench.reporting import collect, runs, style

LABELS = {
    "resnet": "ResNet (plain)",
    "original_isnet": "Original ISNet",
    "stochastic_isnet": "Stochastic ISNet",
    "stochastic_isnet_f8": "Stochastic ISNet, 1/8 of heatmaps",
}
ACCURACY = {
    "resnet": (1.0, 0.348, 0.021),
    "original_isnet": (0.968, 0.966, 0.965),
    "stochastic_isnet": (0.967, 0.967, 0.967),
    "stochastic_isnet_f8": (0.95, 0.93, 0.91),
}
SETS = ("iid", "ood", "deceiving")
IMAGES = 200
ROOT = Path(__file__).resolve().parents[1]
TRAINING = {
    **{"epochs": 1, "batch_size": 8, "learning_rate": 1e-3, "weight_decay": 0.0, "gradient_clip": None},
    "epoch": "total",
}
EXPERIMENT = {"data": {"name": "mnist"}, "backbone": {"name": "resnet_small"}, "training": TRAINING}


class Bench:
    """A configuration, as a user would write it, and a folder of results."""

    def __init__(self, raw, root):
        self.raw, self.root, self.experiment = raw, root, raw["experiments"]["mnist"]

    @property
    def config(self):
        return configuration.check(self.raw, "test")

    def run(self, row, seed, experiment="mnist"):
        return Layout(self.root).run(experiment, row, seed)

    def change(self, row, seed, name="metrics.json", **entries):
        """Write other entries into a JSON file of a run."""
        path = self.run(row, seed) / name
        path.write_text(json.dumps({**json.loads(path.read_text()), **entries}), encoding="utf-8")
        return path

    def change_data(self, title, stand_in):
        for row in LABELS:
            for seed in self.raw["seeds"]:
                record = json.loads((self.run(row, seed) / "run.json").read_text())["data"]
                self.change(row, seed, "run.json", data={**record, "title": title, "stand_in": stand_in})

    def predictions(self, row, seed):
        return self.run(row, seed) / "predictions.parquet"

    def collect(self, name="mnist"):
        collect.collect(self.config, name, self.root, Layout(self.root).collected(name))

    def read(self, name="mnist"):
        """Collect, and read what was collected."""
        self.collect(name)
        return runs.read(self.config, name, self.root)


@pytest.fixture
def bench(tmp_path):
    """Runs of four rows and three seeds; accuracies are mean - 0.01, mean, mean + 0.01, <= 1."""
    entries = {row: {"label": label} for row, label in LABELS.items()}
    entries["stochastic_isnet_f8"]["method"] = "stochastic_isnet"
    experiment = {**EXPERIMENT, "title": "MNIST with a synthetic background bias", "methods": entries}
    bench = Bench({"seeds": [0, 1, 2], "experiments": {"mnist": experiment}}, tmp_path)
    for row in LABELS:
        for seed in range(3):
            share = 0.62 if row == "resnet" else 0.04 + 0.01 * seed
            sets = {
                name: _scores(min(1.0, mean + 0.01 * (seed - 1)), share)
                for name, mean in zip(SETS, ACCURACY[row], strict=True)
            }
            changed = 0.98 if row == "resnet" else 0.01 * seed
            write_run(bench.run(row, seed), row, seed, sets, prediction_changes=changed, train_seconds=20.0 + 2 * seed)
            np.savez(bench.run(row, seed) / "heatmaps.npz", **stored_heatmaps(biased=row == "resnet"))
    _write_predictions(bench)
    return bench


def write_run(folder, row, seed, sets, params=None, classes=10, train_seconds=20.0, **metrics):
    """Write all that a training, and where there are test sets an evaluation, writes of numbers."""
    folder.mkdir(parents=True)
    data = {"name": "mnist", "title": "MNIST", "stand_in": False, "test_sets": list(sets), "splits": {"val": 400}}
    record = {
        "hyperparameters": params or {},
        "training": TRAINING,
        "data": {**data, "classes": [str(digit) for digit in range(classes)]},
        "range": None,
        **{"train_seconds": train_seconds, "seconds": 30.0, "epochs": 3, "best_epoch": 2, "parameters": 10},
        **{"started": "2026-01-01T00:00:00+00:00", "git_commit": "0123abcd", "git_dirty": False},
        **{"versions": {"torch": "2"}, "hardware": {"cores": 2}},
    }
    (folder / "run.json").write_text(json.dumps(record), encoding="utf-8")
    history = {"epoch": [1, 2, 3], "val_accuracy": [1.0, 0.1 + 0.2, 1.0], "val_loss": [9.0, 1.0, 8.0]}
    pd.DataFrame(history).to_csv(folder / "history.csv", index=False)
    if sets:
        shared = {"data": "MNIST", "stand_in": False, "row": row, "seed": seed, "train_seconds": train_seconds}
        explained = {"explainer": "LRP-epsilon with z^B input rule", "prediction_changes": None}
        (folder / "metrics.json").write_text(json.dumps({**shared, **explained, **metrics, "sets": sets}))
        predicted = [_predictions(name, 0.5, np.arange(IMAGES)) for name in sets]
        pd.concat(predicted).to_parquet(folder / "predictions.parquet", index=False)


def _scores(accuracy, share):
    """Scores that differ from each other; 100 images of each digit, all mistakes being the next digit."""
    right = round(100 * accuracy)
    confusion = right * np.eye(10, dtype=int) + (100 - right) * np.roll(np.eye(10, dtype=int), 1, axis=1)
    one = {"precision": accuracy, "recall": right / 100, "specificity": None, "support": 100}
    scores = {"accuracy": accuracy, "macro_f1": accuracy / 2, "balanced_accuracy": accuracy / 4, "auc": None}
    background = {"background_relevance": share, "background_area": 0.71, "images": 2000}
    return {**scores, **background, "per_class": [one] * 10, "confusion": confusion.tolist()}


def stored_heatmaps(biased):
    """Discs on black with a white border pixel; relevance on the disc, and on the mark if biased."""
    rows, columns = np.mgrid[:28, :28]
    masks = np.stack([(np.hypot(rows - 13, columns - 10 - k) < 6 + k % 3) for k in range(6)])[:, None]
    images = masks * np.float32(0.8)
    labels = np.array([3, 3, 0, 7, 1, 0])
    images[np.arange(6), 0, 2 * labels, 0] = 1
    noise = np.random.default_rng(0).normal(size=images.shape)
    relevance = masks * (0.3 + noise)
    relevance[np.arange(6), 0, 2 * labels, 0] = 300 if biased else 0
    stored = {"images": images, "masks": masks, "relevance": relevance, "labels": labels}
    return {f"iid_{name}": value.astype("int64" if name == "labels" else "float32") for name, value in stored.items()}


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were drawn, in place of their files."""
    figs = []
    monkeypatch.setattr(style, "save", lambda fig, prefix: figs.append(fig))
    return figs


def _write_predictions(bench):
    """Predictions of 200 images, right about the share that ACCURACY says."""
    generator = np.random.default_rng(0)
    difficulty = generator.random(IMAGES)
    for row in LABELS:
        for seed in range(3):
            tables = [
                _predictions(name, share, difficulty + 0.05 * generator.normal(size=IMAGES))
                for name, share in zip(SETS, ACCURACY[row], strict=True)
            ]
            pd.concat(tables).to_parquet(bench.predictions(row, seed), index=False)


def _predictions(name, share, difficulty):
    label = np.arange(IMAGES) % 10
    right = np.argsort(np.argsort(difficulty)) < round(share * IMAGES)
    table = {"set": name, "index": np.arange(IMAGES), "label": label, "prediction": np.where(right, label, 9 - label)}
    return pd.DataFrame(table | {f"prob_{k}": 0.1 for k in range(10)})
