"""Configurations: the three that ship, what is refused and how, and what each job's part of one holds."""

import copy
import json
from pathlib import Path

import pytest
import yaml

from isnet_bench import candidates, methods
from isnet_bench import config as configuration
from isnet_bench.errors import BenchError

CONFIGS = sorted((Path(__file__).resolve().parents[1] / "config").glob("*.yaml"))
BIAS = {"pattern": "border_pixel", "strength": 1.0, "size": 1}
WHOLE = {
    "seeds": [0, 1],
    "experiments": {
        "mnist": {
            "title": "A title",
            "data": {"name": "mnist", "bias": BIAS},
            "backbone": {"name": "resnet_small"},
            "training": {
                "epochs": 2,
                "batch_size": 8,
                "learning_rate": 1e-3,
                "weight_decay": 0,
                "gradient_clip": None,
            },
            "methods": {
                "resnet": None,
                "stochastic_isnet": {},
                "long": {"method": "resnet", "label": "Trained longer", "training": {"epochs": 9}},
            },
        },
        "other": {"data": {"name": "mnist"}},
    },
    "timing": {
        "classes": [2, 4],
        "methods": ["resnet"],
        "backbone": {"name": "resnet_small"},
        "image_size": 28,
        "batch_size": 4,
        "rounds": 2,
    },
}


@pytest.fixture
def whole():
    return copy.deepcopy(WHOLE)


@pytest.fixture
def checked():
    return configuration.check(WHOLE, "test")


def put(config, path, value):
    """Set ``config[a][b][c]`` for the path "a.b.c"."""
    *parents, last = path.split(".")
    for name in parents:
        config = config[name]
    config[last] = value


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_shipped_configurations_are_good(path):
    config = configuration.load(path)
    assert config["seeds"]
    for experiment, section in yaml.safe_load(path.read_text())["experiments"].items():
        assert [entry.row for entry in configuration.experiment_entries(config, experiment)] == list(section["methods"])


def test_what_may_be_left_out_is_filled_in(whole, checked):
    assert (checked["device"], checked["results"]) == ("auto", "results")
    assert checked["experiments"]["other"]["title"] == "other"
    assert checked["experiments"]["mnist"]["backbone"] == {"name": "resnet_small", "options": {}}
    assert checked["experiments"]["mnist"]["methods"]["resnet"] == {}
    assert whole == WHOLE, "the given configuration has been changed"


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        (
            "sedes",
            [0],
            "unknown key 'sedes' in the configuration; known keys: device, experiments, results, seeds, ",
        ),
        (
            "experiments.mnist.method",
            {},
            "unknown key 'method' in experiments.mnist; "
            "known keys: backbone, data, gallery, gallery_set, methods, score, title, training",
        ),
        (
            "experiments.mnist.methods.long.lable",
            "x",
            "unknown key 'lable' in experiments.mnist.methods.long; known keys: label, method, ",
        ),
        ("timing.round", 1, "unknown key 'round' in timing; known keys: "),
        (
            "experiments.mnist.data.images",
            5,
            "unknown key 'images' in experiments.mnist.data; known keys: bias, ",
        ),
        (
            "experiments.mnist.data.bias.stength",
            1.0,
            "unknown key 'stength' in experiments.mnist.data.bias; known keys: pattern, size, strength",
        ),
        (
            "experiments.mnist.methods.stochastic_isnet.params",
            {"fraction": 0.5},
            "unknown key 'fraction' in experiments.mnist.methods.stochastic_isnet.params; known keys: ",
        ),
        (
            "experiments.mnist.methods.magic",
            {},
            "experiments.mnist.methods.magic: unknown method 'magic'; known: ",
        ),
        ("timing.methods", ["magic"], "timing.methods.magic: unknown method 'magic'; known: "),
        (
            "experiments.mnist.data.name",
            "atlantis",
            "experiments.mnist.data: unknown data set 'atlantis'; known: ",
        ),
        (
            "experiments.mnist.training",
            {"epochs": 1},
            "experiments.mnist.training lacks the key 'batch_size'",
        ),
        (
            "experiments.mnist.training.epochs",
            "3",
            "experiments.mnist.training.epochs: '3' is not of type 'integer'",
        ),
        (
            "experiments.mnist.data.seed",
            "one",
            "experiments.mnist.data.seed: Input should be a valid integer, not 'one'",
        ),
        (
            "experiments.mnist.data.bias.strength",
            2.0,
            "experiments.mnist.data: strength must lie in [0, 1], not 2.0",
        ),
        (
            "experiments.tables",
            {"data": {"name": "mnist"}},
            "'tables' is taken: it names a rule or another folder",
        ),
        (
            "experiments.mnist.data",
            {"name": "xray", "labels": ["a", "b"], "marks": {"patern": "corner_shape"}},
            "unknown key 'patern' in experiments.mnist.data.marks; known keys: pattern, size, strength",
        ),
        ("seeds", [], "seeds: [] should be non-empty"),
        ("seeds", [-1], "seeds.0: -1 is less than the minimum of 0"),
        ("device", "tpu", "device: 'tpu' is not one of ['auto', 'cpu', 'cuda']"),
    ],
)
def test_a_mistake_is_one_sentence(whole, path, value, sentence):
    if path.endswith("params"):
        whole["experiments"]["mnist"]["methods"]["stochastic_isnet"] = {}
    put(whole, path, value)
    with pytest.raises(BenchError) as caught:
        configuration.check(whole, "mine.yaml")
    message = str(caught.value)
    assert message.startswith("mine.yaml: ")
    assert sentence in message
    assert "\n" not in message


def test_known_keys_are_those_of_the_dataclass(whole):
    put(whole, "experiments.mnist.methods.stochastic_isnet", {"params": {"fraction": 0.5}})
    with pytest.raises(BenchError, match=r"known keys: .*\bheatmap_fraction\b"):
        configuration.check(whole, "mine.yaml")


def test_unreadable_sources(tmp_path):
    with pytest.raises(BenchError, match=r"there is no configuration .*none\.yaml"):
        configuration.load(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("seeds: [0\nexperiments: {")
    with pytest.raises(BenchError, match=r"bad\.yaml cannot be read: .* line 2"):
        configuration.load(tmp_path / "bad.yaml")
    (tmp_path / "empty.yaml").write_text("")
    with pytest.raises(BenchError, match="must be a mapping"):
        configuration.load(tmp_path / "empty.yaml")
    with pytest.raises(BenchError, match="cannot be read"):
        configuration.load('{"seeds": [0}')


def test_a_file_must_be_whole_and_json_text_may_be_a_part(tmp_path):
    part = {"experiments": {"mnist": {"data": {"name": "mnist"}}}}
    assert configuration.load(json.dumps(part))["experiments"]["mnist"]["data"] == {"name": "mnist"}
    (tmp_path / "part.yaml").write_text(yaml.safe_dump(part))
    with pytest.raises(BenchError, match="the configuration lacks the key 'seeds'"):
        configuration.load(tmp_path / "part.yaml")


def test_typed_reads_what_snakemake_leaves_as_text():
    given = {
        "seeds": ["0", "1"],
        "a": {"b": "null", "c": "1.5", "d": "true", "e": "one: two"},
        "g": "[",
        "f": 3,
    }
    assert configuration.typed(given) == {
        "seeds": [0, 1],
        "a": {"b": None, "c": 1.5, "d": True, "e": "one: two"},
        "g": "[",
        "f": 3,
    }


def test_method_entries(checked):
    entry = configuration.method_entry(checked, "mnist", "long")
    assert (entry.row, entry.method, entry.label) == ("long", "resnet", "Trained longer")
    assert entry.training == {**WHOLE["experiments"]["mnist"]["training"], "epochs": 9}
    assert configuration.method_entry(checked, "mnist", "resnet").label == methods.get("resnet").label
    with pytest.raises(BenchError, match="unknown method of experiment mnist: 'x'; the configuration has: long, "):
        configuration.method_entry(checked, "mnist", "x")
    with pytest.raises(BenchError, match="unknown experiment: 'x'; the configuration has: mnist, other"):
        configuration.method_entry(checked, "x", "resnet")


@pytest.mark.parametrize("given", [["resnet"], {"resnet": None}, {"row": {"method": "resnet"}}])
def test_timing_methods_have_the_same_forms(whole, given):
    whole["timing"]["methods"] = given
    (entry,) = configuration.timing_entries(configuration.check(whole, "test"))
    assert (entry.row, entry.method) == (next(iter(given)), "resnet")


def test_rows_that_explain_the_same_share_a_relevance_range(whole):
    rows = whole["experiments"]["mnist"]["methods"]
    rows["given"] = {"method": "stochastic_isnet", "params": {"c1": 1.0, "c2": 25.0}}
    rows["twin"] = {"method": "stochastic_isnet", "label": "Twin", "params": {"heatmap_weight": 0.5}}
    rows["top"] = {"method": "stochastic_isnet", "params": {"p_top": 1.0, "heatmap_weight": 0.5}}
    config = configuration.check(whole, "test")
    ids = {row: configuration.range_id(config, "mnist", row) for row in config["experiments"]["mnist"]["methods"]}
    assert ids["resnet"] is ids["long"] is ids["given"] is None
    assert ids["stochastic_isnet"] == ids["twin"] != ids["top"]

    part = configuration.prune(config, "mnist", "twin", "range")
    assert part == configuration.prune(config, "mnist", "stochastic_isnet", "range")
    assert part["experiments"]["mnist"]["methods"] == {ids["twin"]: {"method": "stochastic_isnet", "params": {}}}
    assert configuration.range_id(configuration.load(json.dumps(part)), "mnist", ids["twin"]) == ids["twin"]
    top = configuration.prune(config, "mnist", "top", "range")["experiments"]["mnist"]["methods"][ids["top"]]
    assert top["params"] == {"p_top": 1.0}


TUNING = {"experiment": "mnist", "seed": 7, "candidates": {"resnet": [{"training": {"epochs": 9}}, None]}}


def test_candidates_are_rows_that_start_from_the_defaults(whole):
    whole["experiments"]["mnist"]["methods"]["resnet"] = {"training": {"epochs": 5}}
    base = whole["experiments"]["mnist"]["training"]["epochs"]
    config = configuration.check({**whole, "tuning": TUNING}, "test")
    assert candidates.experiment(config) == "mnist_tuning"
    assert candidates.rows(config) == {"resnet": ["resnet_candidate1", "resnet_candidate2"]}
    first, second = configuration.experiment_entries(config, "mnist_tuning")
    assert (first.row, first.method, first.training["epochs"]) == ("resnet_candidate1", "resnet", 9)
    assert (second.row, second.method, second.training["epochs"]) == ("resnet_candidate2", "resnet", base)
    assert config["experiments"]["mnist_tuning"]["data"] == config["experiments"]["mnist"]["data"]
    part = configuration.prune(config, verb="tune")
    assert configuration.load(json.dumps(part))["experiments"].keys() == {"mnist", "mnist_tuning"}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"experiment": "x"}, "tuning.experiment: unknown experiment 'x'; there are: mnist"),
        ({"candidates": {"resnett": [{}]}}, "resnett_candidate1: unknown method 'resnett'"),
        ({"candidates": {"rrr": [{"params": {"weigth": 1.0}}]}}, "unknown key 'weigth' in .*rrr_candidate1.params"),
        ({"candidates": {"rrr": []}}, "tuning.candidates.rrr"),
    ],
)
def test_mistakes_in_the_tuning_section(whole, change, sentence):
    with pytest.raises(BenchError, match=sentence):
        configuration.check({**whole, "tuning": {**TUNING, **change}}, "test")


def test_the_gallery_names_rows(whole):
    whole["experiments"]["mnist"]["gallery"] = ["resnet", "resnext"]
    with pytest.raises(BenchError, match=r"experiments.mnist.gallery: no row resnext; the rows are .*resnet"):
        configuration.check(whole, "test")


@pytest.mark.parametrize(("epochs", "wanted"), [(30, 4), (2, 2)])
def test_the_classifier_of_the_ranges_is_a_short_plain_training(whole, epochs, wanted):
    whole["experiments"]["mnist"]["training"]["epochs"] = epochs
    part = configuration.prune(configuration.check(whole, "test"), "mnist", verb="range_classifier")
    (entry,) = configuration.experiment_entries(configuration.load(json.dumps(part)), "mnist")
    assert (entry.row, entry.method, entry.params) == ("range_classifier", "resnet", {})
    assert entry.training["epochs"] == wanted


@pytest.mark.parametrize("verb", ["prepare", "range", "train", "evaluate", "tables", "figures", "time"])
def test_a_part_is_a_configuration_and_has_itself_as_part(checked, verb):
    row = "stochastic_isnet" if verb in ("range", "train", "evaluate") else None
    part = configuration.prune(checked, "mnist", row, verb)
    again = configuration.load(json.dumps(part))
    row = row and next(iter(again["experiments"]["mnist"]["methods"]))
    assert configuration.prune(again, "mnist", row, verb) == part


def test_a_part_holds_what_its_job_depends_on(checked):
    train = configuration.prune(checked, "mnist", "long")
    assert set(train) == {"device", "results", "experiments"}
    assert list(train["experiments"]) == ["mnist"]
    assert list(train["experiments"]["mnist"]["methods"]) == ["long"]
    assert set(configuration.prune(checked, "mnist", verb="prepare")["experiments"]["mnist"]) == {"data"}
    assert configuration.prune(checked, "mnist", verb="tables")["seeds"] == [0, 1]
    assert set(configuration.prune(checked, verb="time")) == {"device", "results", "timing"}
    with pytest.raises(BenchError, match="unknown experiment"):
        configuration.prune(checked, "x")
