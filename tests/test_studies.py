"""Studies: which experiments and rows they are expanded into, what is refused, and what each job's part holds."""

import copy

import pytest

from isnet_bench import config as configuration
from isnet_bench.io.errors import BenchError

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
    for cell in config.cells(study):
        found.setdefault(cell.experiment, []).append(cell.row)
    return found


def test_settings_of_the_data_make_experiments(config):
    names = ["strength_0", "strength_0_25", "strength_1_0"]
    assert made(config, "strength") == {name: ["deep", "resnet"] for name in names}
    for name, strength in zip(names, (0, 0.25, 1.0), strict=True):
        experiment = config.experiment(name)
        assert experiment.data.settings == {"bias": {"pattern": "corner_patch", "size": 2, "strength": strength}}
        assert (experiment.title, experiment.score, experiment.gallery) == ("strength", "macro_f1", None)
        assert experiment.training.model_dump() | TRAINING == experiment.training.model_dump()
        deep, plain = experiment.rows.values()
        assert (deep.method, deep.label, deep.params) == ("stochastic_isnet", "Deep", {"layers": ["layer1"], "w2": 2.0})
        assert (plain.id, plain.method, plain.label) == ("resnet", "resnet", "Standard classifier")
    assert config.experiment("mnist").data.settings == {"bias": {"pattern": "corner_patch", "size": 2}}


def test_settings_of_rows_make_rows(config):
    assert made(config, "weight") == {"weight_runs": ["deep_low_p", "deep_high_p"]}
    low, high = config.experiment("weight_runs").rows.values()
    assert low.params == {"layers": ["layer1"], "w2": 2.0, "heatmap_weight": 0.1}
    assert high.params["heatmap_weight"] == 0.9
    assert (low.method, low.label) == ("stochastic_isnet", "Deep, params.heatmap_weight low P")
    assert (config.study_seeds("weight"), config.study_seeds("both")) == ((7,), (0, 1))


def test_two_settings_are_combined(config):
    rows = ["deep_low_p", "deep_high_p"]
    assert made(config, "both") == {f"both_{value}": rows for value in ("0", "0_25", "1_0")}
    values = [tuple(value.given for value in cell.values) for cell in config.cells("both")]
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
    assert config.experiment("parts_runs").data.settings["bias"] == {"pattern": "border_pixel", "size": 2}
    rows = config.experiment("parts_runs").rows.values()
    assert [row.id for row in rows] == ["mine_nothing", "mine_off", "mine_c_1_25"]
    assert [row.params for row in rows] == [
        {"layers": ["layer2"]},
        {"layers": []},
        {"layers": ["layer2"], "c1": 1.0, "c2": 25.0},
    ]
    assert {row.training.batch_size for row in rows} == {4}


def test_what_an_axis_is(config):
    strength, weight = (config.axes(study)[0] for study in ("strength", "weight"))
    assert (strength.label, strength.scale, strength.named, strength.numeric) == ("Strength", "linear", False, True)
    assert (weight.label, weight.named, weight.numeric) == ("params.heatmap_weight", True, True)
    assert (strength.of_rows, weight.of_rows) == (False, True)


@pytest.mark.parametrize(
    ("study", "change", "sentence"),
    [
        (
            "mnist",
            {},
            "studies.mnist: files of experiment mnist may have that name; begin it with another",
        ),
        ("mnist_accuracy", {}, "studies.mnist_accuracy: files of experiment mnist may have that name"),
        ("studies", {}, "'studies' is taken: it names a rule"),
        ("x", {"experiment": "cifar"}, "studies.x: unknown experiment 'cifar'; known: bare, mnist"),
        ("x", {"experiment": "bare"}, "studies.x: experiment bare has no backbone and training to start from"),
        ("x", {"rows": ["vgg"]}, "studies.x: unknown row 'vgg'; known: deep, resnet"),
        ("x", {"row": ["deep"]}, "studies.x: unknown key 'row'; did you mean 'rows'? known: candidates, changes, "),
        ("x", {"vary": [WEIGHT, WEIGHT]}, "studies.x: vary: params.heatmap_weight is given twice"),
        ("x", {"vary": []}, "studies.x: a study needs either the keys rows and vary, or the key candidates"),
        ("x", {"candidates": {"resnet": [{}]}}, "studies.x: a study needs either the keys rows and vary, or the key "),
        ("x", {"vary": [{**WEIGHT, "setting": "seed"}]}, "studies.x.vary.0.setting: String should match pattern"),
        (
            "x",
            {"vary": [{**WEIGHT, "values": {"a 1": 0.1, "a-1": 0.2}}]},
            "studies.x: the values 'a 1', 'a-1' of params.heatmap_weight look alike in file names; rename one",
        ),
        (
            "x",
            {"changes": {"data.name.size": 1}},
            "studies.x: there is no setting data.name.size: name is 'mnist', not a mapping",
        ),
        ("x", {"rows": ["resnet"]}, "studies.x (x_runs).methods.resnet_low_p.params: unknown key 'heatmap_weight'"),
        (
            "x",
            {"vary": [{"setting": "data.bias.strength", "values": [0.5, "much"]}]},
            "studies.x (x_much).data.bias.strength: 'much' is not of type 'number'",
        ),
    ],
)
def test_a_mistake_is_a_sentence(given, study, change, sentence):
    given["studies"][study] = {**GIVEN["studies"]["weight"], **change}
    with pytest.raises(BenchError) as caught:
        configuration.check(given, "mine.yaml")
    message = str(caught.value)
    assert message.startswith("mine.yaml")
    assert sentence in message


def test_an_experiment_is_never_replaced(given):
    given["experiments"]["strength_0"] = {"data": {"name": "mnist"}}
    with pytest.raises(BenchError, match=r"studies.strength: its experiment strength_0 would overwrite another"):
        configuration.check(given, "test")


def test_unknown_study(config):
    with pytest.raises(BenchError, match="unknown study 'weigth'; did you mean 'weight'"):
        config.study("weigth")


TUNING = {"experiment": "mnist", "seeds": [7], "candidates": {"resnet": [{"training": {"epochs": 9}}, None]}}


def test_candidates_are_rows_that_start_from_the_defaults(given):
    given["experiments"]["mnist"]["methods"]["resnet"] = {"training": {"epochs": 5}}
    given["studies"]["tuning"] = TUNING
    config = configuration.check(given, "test")
    assert config.study("tuning").select
    assert made(config, "tuning") == {"tuning_runs": ["resnet_candidate1", "resnet_candidate2"]}
    first, second = config.experiment("tuning_runs").rows.values()
    assert (first.method, first.label, first.training.epochs) == ("resnet", "resnet: epochs 9", 9)
    assert (second.method, second.label, second.training.epochs) == ("resnet", "resnet: defaults", TRAINING["epochs"])
    assert config.experiment("tuning_runs").data == config.experiment("mnist").data


@pytest.mark.parametrize(
    ("candidates", "sentence"),
    [
        ({"resnett": [{}]}, r"resnett_candidate1: unknown method 'resnett'"),
        ({"rrr": [{"params": {"weigth": 1.0}}]}, r"rrr_candidate1.params: unknown key 'weigth'"),
    ],
)
def test_mistakes_in_candidates(given, candidates, sentence):
    given["studies"]["tuning"] = {**TUNING, "candidates": candidates}
    with pytest.raises(BenchError, match=sentence):
        configuration.check(given, "test")


@pytest.mark.parametrize("study", GIVEN["studies"])
def test_a_part_is_a_configuration_and_has_itself_as_part(config, study):
    part = config.part("report", study=study)
    again = configuration.load(part)
    assert again.part("report", study=study) == part
    assert again.cells(study) == config.cells(study)
    assert again.study_seeds(study) == config.study_seeds(study)


def test_parts_hold_nothing_of_other_values_studies_and_rows(given, config):
    # Another value, another study, another row of the experiment, and other seeds where a study has its own.
    given["studies"]["strength"]["vary"][0]["values"].append(0.5)
    given["studies"]["another"] = {**GIVEN["studies"]["both"], "rows": ["resnet"], "vary": [STRENGTH]}
    given["experiments"]["mnist"]["methods"]["gain"] = {"params": {"mask_weight": 1.0}}
    given["experiments"]["mnist"]["methods"]["resnet"] = {"training": {"epochs": 9}}
    given["seeds"] = [3]
    changed = configuration.check(given, "test")
    assert changed.part("report", study="weight") == config.part("report", study="weight")
    for name, row in (("weight_runs", "deep_low_p"), ("strength_0_25", "deep")):
        for verb in ("prepare", "range", "train", "evaluate"):
            assert changed.part(verb, name, row) == config.part(verb, name, row)
    assert changed.part("train", "strength_0", "resnet") != config.part("train", "strength_0", "resnet")
