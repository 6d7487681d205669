"""The choice among candidates: the rule by hand, and the files that are written."""

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml

from isnet_bench import candidates, tuning
from isnet_bench import config as configuration
from isnet_bench.errors import BenchError

ROOT = Path(__file__).resolve().parents[1]
CANDIDATES = {
    "rrr": [{"params": {"weight": 1000.0}}, {"params": {"weight": 10.0}, "training": {"learning_rate": 1e-2}}],
    "resnet": [None, {"training": {"learning_rate": 1e-2}}, {"training": {"learning_rate": 1e-3}}],
}
ACCURACY = {"rrr": (0.90, 0.97), "resnet": (0.951, 0.96, 0.5)}


@pytest.fixture
def config(tiny_config):
    given = {**tiny_config, "tuning": {"experiment": "tiny", "seed": 5, "candidates": CANDIDATES}}
    return configuration.check(given, "the test's configuration")


@pytest.fixture
def results(config, tmp_path):
    """Runs of all candidates, validated on 400 images; the second of three epochs is the best one."""
    for method, accuracies in ACCURACY.items():
        for row, accuracy in zip(candidates.rows(config)[method], accuracies, strict=True):
            folder = tmp_path / "tiny_tuning" / row / "seed5"
            folder.mkdir(parents=True)
            entry = configuration.method_entry(config, "tiny_tuning", row)
            record = {
                "best_epoch": 2,
                "training": {**entry.training, "schedule": "one_cycle"},
                "hyperparameters": {**entry.params},
                "data": {"splits": {"val": 400}, "title": "digits", "stand_in": True},
                "train_seconds": 12.3,
            }
            (folder / "run.json").write_text(json.dumps(record))
            history = {"epoch": [1, 2, 3], "val_accuracy": [1.0, accuracy, 1.0], "val_loss": [9.0, 1.0, 8.0]}
            pd.DataFrame(history).to_csv(folder / "history.csv", index=False)
    return tmp_path


@pytest.mark.parametrize(
    ("accuracy", "images", "place"),
    [
        # Standard error of 0.9 with 100 images: 0.03.
        ([0.86, 0.87, 0.90, 0.89], 100, 1),
        ([0.8699, 0.86, 0.90], 100, 2),
        # With a hundred times as many it is 0.003.
        ([0.86, 0.87, 0.90, 0.89], 10_000, 2),
        # No error at all: the first of the best.
        ([0.998, 1.0, 1.0], 500, 1),
        ([1.0, 1.0], 500, 0),
        ([0.3], 10, 0),
    ],
)
def test_the_first_candidate_within_one_standard_error_is_chosen(accuracy, images, place):
    assert tuning.choose(accuracy, images) == place


def test_the_choice_is_written_as_table_and_as_configuration(config, results):
    tuning.select(config, results, results / "tables" / "tuning")
    table = pd.read_csv(results / "tables" / "tuning.csv")
    # RRR: 0.97 has a standard error of 0.0085, so 0.90 is worse. Plain: 0.96 has one of 0.0098, so 0.951 is not.
    assert table.loc[table["chosen"], ["method", "candidate"]].values.tolist() == [["rrr", 2], ["resnet", 1]]
    assert table["val_accuracy"].tolist() == [*ACCURACY["rrr"], *ACCURACY["resnet"]]
    chosen = yaml.safe_load((results / "tables" / "tuning.yaml").read_text())
    assert chosen == {"methods": {"rrr": CANDIDATES["rrr"][1], "resnet": {}}}
    text = (results / "tables" / "tuning.md").read_text()
    assert text.startswith("STAND-IN DATA: Tuning: tiny. Data: digits. Accuracy on 400 iid validation images")
    assert "weight 10.0, learning_rate 0.01" in text
    record = json.loads((results / "tables" / "tuning.json").read_text())
    assert record["rule"] == tuning.RULE
    assert record["tuning"]["seed"] == 5
    assert record["versions"]


def test_a_candidate_that_is_missing_or_was_trained_otherwise(config, results):
    path = results / "tiny_tuning" / "rrr_candidate2" / "seed5" / "run.json"
    record = json.loads(path.read_text())
    for kind, key in (("hyperparameters", "weight"), ("training", "learning_rate")):
        path.write_text(json.dumps({**record, kind: {**record[kind], key: 0.5}}))
        with pytest.raises(BenchError, match=r"was trained with other settings .*--method rrr_candidate2 --seed 5"):
            tuning.select(config, results, results / "tuning")
    path.unlink()
    with pytest.raises(BenchError, match=r"run.json is missing: train it with: .*--method rrr_candidate2 --seed 5"):
        tuning.select(config, results, results / "tuning")
    assert not list(results.glob("tuning*"))


def test_the_default_configuration_is_what_tuning_chose():
    published = ROOT / "results" / "published" / "tables"
    chosen = yaml.safe_load((published / "tuning.yaml").read_text())["methods"]
    config = configuration.load(ROOT / "config" / "config.yaml")
    assert json.loads((published / "tuning.json").read_text())["tuning"] == config["tuning"]
    assert set(chosen) == {entry.method for entry in configuration.experiment_entries(config, "mnist")}
    for row, given in config["experiments"]["mnist"]["methods"].items():
        choice = chosen[given.get("method", row)]
        assert given.get("training", {}) == choice.get("training", {})
        assert given.get("params", {}) | choice.get("params", {}) == given.get("params", {})
        if "method" not in given:
            assert given.get("params", {}) == choice.get("params", {})
