"""Run folders that the tests of reporting write themselves: metrics, records, predictions and heatmaps."""

import json

import numpy as np
import pandas as pd
import pytest

from isnet_bench.reporting import style

LABELS = {
    "stochastic_isnet_f8": "Stochastic ISNet, 1/8 of heatmaps",
    "stochastic_isnet": "Stochastic ISNet",
    "resnet": "ResNet (plain)",
    "original_isnet": "Original ISNet",
}
ACCURACY = {
    "resnet": (1.0, 0.348, 0.021),
    "original_isnet": (0.968, 0.966, 0.965),
    "stochastic_isnet": (0.967, 0.967, 0.967),
    "stochastic_isnet_f8": (0.95, 0.93, 0.91),
}
SETS = ("iid", "ood", "deceiving")
IMAGES = 200


@pytest.fixture
def config():
    entries = {row: {"label": label} for row, label in LABELS.items()}
    entries["stochastic_isnet_f8"]["method"] = "stochastic_isnet"
    experiment = {"title": "MNIST with a synthetic background bias", "methods": entries}
    return {"seeds": [0, 1, 2], "experiments": {"mnist": experiment}}


@pytest.fixture
def results(tmp_path, config):
    """Run folders of four methods and three seeds; accuracies are mean - 0.01, mean, mean + 0.01, <= 1."""
    for row in LABELS:
        for seed in config["seeds"]:
            write_run(tmp_path / "mnist" / row / f"seed{seed}", row, seed)
    _write_predictions(tmp_path)
    return tmp_path


def write_run(folder, row, seed):
    folder.mkdir(parents=True)
    share = 0.62 if row == "resnet" else 0.04 + 0.01 * seed
    sets = {
        name: {
            **_scores(min(1.0, mean + 0.01 * (seed - 1))),
            "background_relevance": share,
            "background_area": 0.71,
            "images": 2000,
        }
        for name, mean in zip(SETS, ACCURACY[row], strict=True)
    }
    metrics = {
        "data": "MNIST",
        "stand_in": False,
        "method": row,
        "label": LABELS[row],
        "seed": seed,
        "explainer": "LRP-epsilon with z^B input rule",
        "sets": sets,
        "prediction_changes": 0.98 if row == "resnet" else 0.01 * seed,
        "train_seconds": 20.0 + 2 * seed,
    }
    (folder / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    run = {"data": {"classes": [str(digit) for digit in range(10)]}}
    (folder / "run.json").write_text(json.dumps(run), encoding="utf-8")
    np.savez(folder / "heatmaps.npz", **stored_heatmaps(biased=row == "resnet"))


def _scores(accuracy):
    """Scores that differ from each other; 100 images of each digit, all mistakes being the next digit."""
    right = round(100 * accuracy)
    confusion = right * np.eye(10, dtype=int) + (100 - right) * np.roll(np.eye(10, dtype=int), 1, axis=1)
    one = {"precision": accuracy, "recall": right / 100, "specificity": None, "support": 100}
    return {
        "accuracy": accuracy,
        "macro_f1": accuracy / 2,
        "balanced_accuracy": accuracy / 4,
        "auc": None,
        "per_class": [one] * 10,
        "confusion": confusion.tolist(),
    }


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


def change(results, row, seed, **entries):
    path = results / "mnist" / row / f"seed{seed}" / "metrics.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}), encoding="utf-8")
    return path


def _write_predictions(results):
    """Predictions of 200 images, right about the share that ACCURACY says."""
    generator = np.random.default_rng(0)
    difficulty = generator.random(IMAGES)
    for row in LABELS:
        for seed in range(3):
            tables = [
                _predictions(name, share, difficulty + 0.05 * generator.normal(size=IMAGES))
                for name, share in zip(SETS, ACCURACY[row], strict=True)
            ]
            pd.concat(tables).to_parquet(predictions_path(results, row, seed), index=False)


def _predictions(name, share, difficulty):
    label = np.arange(IMAGES) % 10
    right = np.argsort(np.argsort(difficulty)) < round(share * IMAGES)
    table = {"set": name, "index": np.arange(IMAGES), "label": label, "prediction": np.where(right, label, 9 - label)}
    return pd.DataFrame(table | {f"prob_{k}": 0.1 for k in range(10)})


def predictions_path(results, row, seed):
    return results / "mnist" / row / f"seed{seed}" / "predictions.parquet"
