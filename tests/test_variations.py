"""Studies: which experiments and rows they are expanded into, what is refused, and what each job's part holds."""

import copy
import json
from pathlib import Path

import pytest

from isnet_bench import config as configuration
from isnet_bench import variations
from isnet_bench.errors import BenchError

ROOT = Path(__file__).resolve().parents[1]
TRAINING = {"epochs": 2, "batch_size": 8, "learning_rate": 1e-3, "weight_decay": 0, "gradient_clip": None}
STRENGTH = {"setting": "data.bias.strength", "label": "Strength", "values": [0, 0.25, 1.0]}
WEIGHT = {"setting": "params.heatmap_weight", "values": {"low P": 0.1, "high P": 0.9}}
GIVEN = {
    "seeds": [0, 1],
    "experiments": {
        "mnist": {
            "title": "Digits",
            "data": {"name": "mnist", "bias": {"pattern": "corner_patch", "size": 2}},
            "backbone": {"name": "resnet_small"},
            "training": TRAINING,
            "methods": {
                "resnet": None,
                "deep": {"method": "stochastic_isnet", "label": "Deep", "params": {"layers": ["layer1"], "w2": 2.0}},
            },
            "score": "macro_f1",
            "gallery": ["deep"],
        },
        "bare": {"data": {"name": "phantom"}},
    },
    "studies": {
        "strength": {"experiment": "mnist", "rows": ["deep", "resnet"], "vary": [STRENGTH]},
        "weight": {"title": "Weights", "experiment": "mnist", "rows": ["deep"], "seeds": [7], "vary": [WEIGHT]},
        "both": {"experiment": "mnist", "rows": ["deep"], "vary": [WEIGHT, STRENGTH]},
    },
}


@pytest.fixture
def given():
    return copy.deepcopy(GIVEN)


@pytest.fixture
def config():
    return configuration.check(GIVEN, "test")


def made(config, study):
    """Experiments of a study, and their rows."""
    found = {}
    for cell in variations.cells(config, study):
        found.setdefault(cell.experiment, []).append(cell.row)
    return found


def test_settings_of_the_data_make_experiments(config):
    names = ["strength_0", "strength_0_25", "strength_1_0"]
    assert made(config, "strength") == {name: ["deep", "resnet"] for name in names}
    for name, strength in zip(names, (0, 0.25, 1.0), strict=True):
        section = config["experiments"][name]
        assert section["data"] == {
            "name": "mnist",
            "bias": {"pattern": "corner_patch", "size": 2, "strength": strength},
        }
        assert {key: section[key] for key in ("title", "score", "training")} == {
            "title": "strength",
            "score": "macro_f1",
            "training": TRAINING,
        }
        assert "gallery" not in section
        deep, plain = configuration.experiment_entries(config, name)
        assert (deep.method, deep.label, deep.params) == ("stochastic_isnet", "Deep", {"layers": ["layer1"], "w2": 2.0})
        assert (plain.row, plain.method) == ("resnet", "resnet")
    assert config["experiments"]["mnist"]["data"] == GIVEN["experiments"]["mnist"]["data"]


def test_settings_of_rows_make_rows(config):
    assert made(config, "weight") == {"weight_runs": ["deep_low_p", "deep_high_p"]}
    low, high = configuration.experiment_entries(config, "weight_runs")
    assert low.params == {"layers": ["layer1"], "w2": 2.0, "heatmap_weight": 0.1}
    assert high.params["heatmap_weight"] == 0.9
    assert (low.method, low.label) == ("stochastic_isnet", "Deep, params.heatmap_weight low P")
    assert (variations.seeds(config, "weight"), variations.seeds(config, "both")) == ([7], [0, 1])


def test_two_settings_are_combined(config):
    rows = ["deep_low_p", "deep_high_p"]
    assert made(config, "both") == {f"both_{value}": rows for value in ("0", "0_25", "1_0")}
    values = [tuple(value.given for value in cell.values) for cell in variations.cells(config, "both")]
    assert values == [(weight, strength) for weight in (0.1, 0.9) for strength in (0, 0.25, 1.0)]


def test_rows_of_its_own_changes_and_mappings(given):
    values = {"nothing": {}, "off": {"layers": []}, "C 1, 25": {"c1": 1.0, "c2": 25.0}}
    given["studies"] = {
        "parts": {
            "experiment": "mnist",
            "rows": {"resnet": {"training": {"epochs": 5}}, "mine": {"method": "stochastic_isnet"}},
            "changes": {"data.bias": {"pattern": "border_pixel"}, "training.batch_size": 4},
            "vary": [{"setting": "params", "values": values}],
        }
    }
    del given["studies"]["parts"]["rows"]["resnet"]
    given["studies"]["parts"]["changes"]["params.layers"] = ["layer2"]
    config = configuration.check(given, "test")
    assert config["experiments"]["parts_runs"]["data"]["bias"] == {"pattern": "border_pixel", "size": 2}
    entries = configuration.experiment_entries(config, "parts_runs")
    assert [entry.row for entry in entries] == ["mine_nothing", "mine_off", "mine_c_1_25"]
    assert [entry.params for entry in entries] == [
        {"layers": ["layer2"]},
        {"layers": []},
        {"layers": ["layer2"], "c1": 1.0, "c2": 25.0},
    ]
    assert {entry.training["batch_size"] for entry in entries} == {4}
    assert [entry.row for entry in configuration.study_entries(config, "parts")] == ["mine"]


def test_what_a_variation_is(config):
    strength, weight = (variations.variations(config, study)[0] for study in ("strength", "weight"))
    assert (strength.label, strength.scale, strength.named, strength.numeric) == ("Strength", "linear", False, True)
    assert (weight.label, weight.named, weight.numeric) == ("params.heatmap_weight", True, True)
    assert (strength.of_rows, weight.of_rows) == (False, True)


@pytest.mark.parametrize(
    ("study", "change", "sentence"),
    [
        (
            "mnist",
            {},
            "studies.mnist: files of the experiment mnist may have that name; choose one that does not begin",
        ),
        ("mnist_accuracy", {}, "studies.mnist_accuracy: files of the experiment mnist may have that name"),
        ("weight_runs", {}, "studies.weight_runs: files of the experiment weight_runs may have that name"),
        ("tune", {}, "'tune' is taken: it names a rule or another folder of the results"),
        ("studies", {}, "'studies' is taken: it names a rule"),
        ("x", {"experiment": "cifar"}, "studies.x.experiment: unknown experiment 'cifar'; there are: mnist, bare"),
        ("x", {"experiment": "bare"}, "studies.x.experiment: bare has no backbone and training to start from"),
        ("x", {"rows": ["vgg"]}, "studies.x.rows: no row vgg in the experiment; its rows are resnet, deep"),
        ("x", {"row": ["deep"]}, "unknown key 'row' in studies.x; known keys: changes, experiment, rows, "),
        ("x", {"vary": [WEIGHT, WEIGHT]}, "studies.x.vary: params.heatmap_weight is there twice"),
        ("x", {"vary": []}, "studies.x.vary: [] should be non-empty"),
        ("x", {"vary": [{**WEIGHT, "setting": "seed"}]}, "studies.x.vary.0.setting: 'seed' does not match"),
        (
            "x",
            {"vary": [{**WEIGHT, "values": {"a 1": 0.1, "a-1": 0.2}}]},
            "studies.x.vary: the values 'a 1', 'a-1' of params.heatmap_weight look alike in file names; rename one",
        ),
        (
            "x",
            {"changes": {"data.name.size": 1}},
            "studies.x: there is no setting data.name.size, since name is no mapping but 'mnist'",
        ),
        (
            "x",
            {"rows": ["resnet"]},
            "unknown key 'heatmap_weight' in studies.x (x_runs).methods.resnet_low_p.params; known keys: ",
        ),
        (
            "x",
            {"vary": [{"setting": "data.bias.strength", "values": [0.5, 2.0]}]},
            "studies.x (x_2_0).data: strength must lie in [0, 1], not 2.0",
        ),
    ],
)
def test_a_mistake_is_one_sentence(given, study, change, sentence):
    given["studies"][study] = {**GIVEN["studies"]["weight"], **change}
    with pytest.raises(BenchError) as caught:
        configuration.check(given, "mine.yaml")
    message = str(caught.value)
    assert message.startswith("mine.yaml: ")
    assert sentence in message
    assert "\n" not in message


def test_an_experiment_is_never_replaced(given):
    given["experiments"]["strength_0"] = {"data": {"name": "mnist"}}
    with pytest.raises(
        BenchError, match=r"studies.strength: its experiment strength_0 would take the place of another"
    ):
        configuration.check(given, "test")


def test_unknown_study(config):
    with pytest.raises(BenchError, match="unknown study 'weigth'; the configuration has: strength, weight, both"):
        variations.rows(config, "weigth")


def test_checking_twice_changes_nothing(given):
    del given["experiments"]["bare"]
    config = configuration.check(given, "test")
    assert configuration.check(config, "again") == config


@pytest.mark.parametrize("study", GIVEN["studies"])
def test_a_part_is_a_configuration_and_has_itself_as_part(config, study):
    part = configuration.prune(config, verb="study", study=study)
    again = configuration.load(json.dumps(part))
    assert configuration.prune(again, verb="study", study=study) == part
    assert variations.cells(again, study) == variations.cells(config, study)
    assert variations.seeds(again, study) == variations.seeds(config, study)


def test_parts_hold_nothing_of_other_values_studies_and_rows(given, config):
    # Another value, another study, another row of the experiment, and other seeds where a study has its own.
    given["studies"]["strength"]["vary"][0]["values"].append(0.5)
    given["studies"]["another"] = {**GIVEN["studies"]["both"], "rows": ["resnet"], "vary": [STRENGTH]}
    given["experiments"]["mnist"]["methods"]["gain"] = {"params": {"mask_weight": 1.0}}
    given["experiments"]["mnist"]["methods"]["resnet"] = {"training": {"epochs": 9}}
    given["seeds"] = [3]
    changed = configuration.check(given, "test")
    assert configuration.prune(changed, verb="study", study="weight") == configuration.prune(
        config, verb="study", study="weight"
    )
    for name, row in (("weight_runs", "deep_low_p"), ("strength_0_25", "deep")):
        for verb in ("prepare", "range", "train", "evaluate"):
            assert configuration.prune(changed, name, row, verb) == configuration.prune(config, name, row, verb)
    assert configuration.prune(changed, "strength_0", "resnet") != configuration.prune(config, "strength_0", "resnet")


def test_owners(config):
    assert variations.owners(config)["both_0_25"] == "both"
    assert set(config["experiments"]) - set(variations.owners(config)) == {"mnist", "bare"}
    assert variations.owners({"experiments": {}}) == {}
