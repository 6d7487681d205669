"""The C1/C2 heuristic as a stage of the benchmark: its classifier, and the ranges of that classifier's heatmaps."""

import json

import pytest
import torch
from safetensors.torch import load_file

import isnet
from isnet_bench import config as configuration
from isnet_bench import data as datasets
from isnet_bench.io import files
from isnet_bench.io.errors import BenchError
from isnet_bench.methods import backbones
from isnet_bench.training import range_file, ranges
from isnet_bench.training.runs import Job

ROWS = {
    "dual_isnet": {},
    "original_isnet": {"params": {"layers": ["layer1"]}},
    "stochastic_isnet": {"params": {"c1": 1.0, "c2": 10.0}},
}


@pytest.fixture(scope="module")
def config(tiny_given):
    section = {**tiny_given["experiments"]["tiny"], "methods": ROWS}
    return configuration.check({**tiny_given, "experiments": {"tiny": section}}, "the test's configuration")


@pytest.fixture(scope="module")
def classifier(config, tiny_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("classifier")
    ranges.train_classifier(Job(config, "tiny", "dual_isnet", 3, tiny_data), folder)
    return folder


@pytest.fixture(scope="module")
def measured(config, tiny_data, classifier, tmp_path_factory):
    out = tmp_path_factory.mktemp("range") / "seed3.json"
    found = {}
    for row in ("dual_isnet", "original_isnet"):
        ranges.measure(Job(config, "tiny", row, 3, tiny_data), classifier, out)
        found[row] = json.loads(out.read_text())
    return found


def totals(classifier, tiny_data, quantity, rule="epsilon"):
    """Total absolute relevance (images, maps) of the training images, straight from the library."""
    network = backbones.create("resnet_small", 10, 1, 28).eval()
    network.load_state_dict(load_file(classifier / "weights.safetensors"))
    explain = isnet.LRPFlex(network, epsilon=1e-2, input_rule="zb", rules=(rule,), layers=("layer1",))
    with torch.no_grad():
        _, relevance, layers = explain(datasets.load(tiny_data, "train").images, quantity)
    return [maps.abs().flatten(2).sum(2) for maps in (relevance, layers["layer1"])]


def test_classifier_is_the_experiments_plain_network(classifier):
    record = json.loads((classifier / "run.json").read_text())
    assert (record["row"], record["seed"], record["epochs"]) == ("range_classifier", 3, 3)
    assert record["range"] is None


def test_each_explanation_has_its_range(measured, classifier, tiny_data):
    for row, found in measured.items():
        assert (found["method"], found["seed"], found["images"]) == (row, 3, 90)
    assert measured["original_isnet"]["explained"]["layers"] == ["layer1"]
    dual, original = (found["ranges"] for found in measured.values())
    for rule, found in zip(("zplus", "epsilon"), dual["input"], strict=True):
        c1, c2 = isnet.relevance_range(totals(classifier, tiny_data, isnet.JointLogits(), rule)[0])
        assert (found["c1"], found["c2"]) == (pytest.approx(c1, rel=1e-4), pytest.approx(c2, rel=1e-4))
    assert dual["input"][0]["c1"] != dual["input"][1]["c1"]
    at_input, at_layer = totals(classifier, tiny_data, isnet.EveryLogit())
    for found, expected in ((original["input"], at_input), (original["layer1"], at_layer)):
        c1, c2 = isnet.relevance_range(expected.mean(1))
        assert [(entry["c1"], entry["c2"]) for entry in found] == [
            (pytest.approx(c1, rel=1e-4), pytest.approx(c2, rel=1e-4))
        ]


def test_a_classifier_of_other_data_is_refused(config, classifier, tiny_data, tmp_path):
    for file in classifier.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    record = json.loads((tmp_path / "run.json").read_text())
    record["data"]["settings"]["seed"] = 99
    files.write_json(tmp_path / "run.json", record)
    with pytest.raises(BenchError, match="was trained on other data than the prepared data are now: train"):
        ranges.measure(Job(config, "tiny", "dual_isnet", 3, tiny_data), tmp_path, tmp_path / "range.json")
    assert not (tmp_path / "range.json").exists()


@pytest.mark.parametrize(
    ("row", "seed", "settings", "other"),
    [
        ("original_isnet", 4, {}, "seed"),
        ("dual_isnet", 3, {}, "method"),
        ("original_isnet", 3, {"params": {"epsilon": 0.5}}, "explained"),
        ("original_isnet", 3, {"weight_decay": 0.5}, "network"),
    ],
)
def test_a_range_of_another_run_is_refused(measured, tiny_given, tiny_data, tmp_path, row, seed, settings, other):
    """A file of another seed, or of a classifier with another recipe, would give other C1 and C2 in silence."""
    section = dict(tiny_given["experiments"]["tiny"])
    section["methods"] = {**ROWS, row: {"params": {**ROWS[row].get("params", {}), **settings.get("params", {})}}}
    section["training"] = {**section["training"], "weight_decay": settings.get("weight_decay", 1e-4)}
    changed = configuration.check({**tiny_given, "experiments": {"tiny": section}}, "the test's configuration")
    path = tmp_path / "range.json"
    files.write_json(path, measured["original_isnet"])
    with pytest.raises(BenchError, match=rf"range\.json was measured for another {other} than this run has: delete"):
        range_file.read(Job(changed, "tiny", row, seed, tiny_data), path)


def test_a_range_of_this_run_is_read(measured, config, tiny_data, tmp_path):
    path = tmp_path / "range.json"
    files.write_json(path, measured["original_isnet"])
    found = range_file.read(Job(config, "tiny", "original_isnet", 3, tiny_data), path)
    assert found["ranges"] == measured["original_isnet"]["ranges"]
    path.write_text(path.read_text().replace('"c1": ', '"c1": 1', 1))
    with pytest.raises(BenchError, match=r"range\.json cannot be read \(it was changed after it was written\)"):
        range_file.read(Job(config, "tiny", "original_isnet", 3, tiny_data), path)
