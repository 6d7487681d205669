"""Configurations: the three that ship, what is refused and how, and what each job's part of one holds."""

import copy
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from wrong_configurations import WRONG, WRONG_FOR_THEM

from isnet_bench import config as configuration
from isnet_bench import data as datasets
from isnet_bench.config import catalog, checking, models
from isnet_bench.io.errors import BenchError

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


def part(config, *what, **names):
    """A job's part of a configuration, as a dictionary."""
    return json.loads(config.part(*what, **names))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_shipped_configurations_are_good(path):
    config = configuration.load(path)
    assert config.seeds
    for experiment, section in yaml.safe_load(path.read_text())["experiments"].items():
        assert list(config.experiment(experiment).rows) == list(section["methods"])


def test_what_may_be_left_out_is_filled_in(whole, checked):
    assert (checked.device, checked.results) == ("auto", "results")
    backbone = checked.experiment("mnist").backbone
    assert (backbone.name, backbone.options) == ("resnet_small", {})
    assert checked.row("mnist", "resnet").params == {}
    assert whole == WHOLE, "the given configuration has been changed"


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("sedes", [0], "the configuration: unknown key 'sedes'; did you mean 'seeds'? known: device, experiments, "),
        (
            "experiments.mnist.method",
            {},
            "experiments.mnist: unknown key 'method'; did you mean 'methods'? known: backbone, data, gallery, ",
        ),
        (
            "experiments.mnist.methods.long.lable",
            "x",
            "experiments.mnist.methods.long: unknown key 'lable'; did you mean 'label'? known: color, label, ",
        ),
        ("timing.round", 1, "timing: unknown key 'round'; did you mean 'rounds'? known: "),
        ("experiments.mnist.data.images", 5, "experiments.mnist.data: unknown key 'images'; "),
        (
            "experiments.mnist.data.bias.stength",
            1.0,
            "experiments.mnist.data.bias: unknown key 'stength'; did you",
        ),
        (
            "experiments.mnist.methods.stochastic_isnet.params",
            {"fraction": 0.5},
            "experiments.mnist.methods.stochastic_isnet.params: unknown key 'fraction'; ",
        ),
        ("experiments.mnist.methods.magic", {}, "experiments.mnist.methods.magic: unknown method 'magic'; "),
        ("timing.methods", ["magic"], "timing.methods.magic: unknown method 'magic'; "),
        ("experiments.mnist.data.name", "atlantis", "experiments.mnist.data.name: unknown data set 'atlantis'; "),
        ("experiments.mnist.training", {"epochs": 1, "batch_size": 2}, "mnist.training lacks the key 'learning_rate'"),
        ("experiments.mnist.training.epochs", "3", "mnist.training.epochs: Input should be a valid integer, not '3'"),
        ("experiments.mnist.training.learning_rate", float("nan"), "mnist.training.learning_rate: Input should be"),
        ("experiments.mnist.data.seed", "one", "experiments.mnist.data.seed: 'one' is not of type 'integer'"),
        ("experiments.tables", {"data": {"name": "mnist"}}, "'tables' is taken: it names a rule or another folder"),
        (
            "experiments.mnist.data",
            {"name": "xray", "labels": ["a", "b"], "marks": {"patern": "corner_shape"}},
            "experiments.mnist.data.marks: unknown key 'patern'; did you mean 'pattern'? known: pattern, "
            "size, strength",
        ),
        ("experiments.mnist.gallery", ["resnext"], "experiments.mnist: gallery: no row resnext; the rows are long, "),
        ("plugins", ["none.py"], "plugins: there is no file none.py"),
        ("seeds", [-1], "seeds.0: Input should be greater than or equal to 0, not -1"),
        ("seeds", [50_000], "seeds.0: Input should be less than or equal to 42948, not 50000"),
        ("results", "my results", "results: 'my results' must be a path without spaces that does not begin with ~"),
        ("results", "~/results", "results: '~/results' must be a path without spaces that does not begin with ~"),
        (
            "experiments.mnist.methods",
            {"a": {"method": "resnet", "label": "Plain"}, "b": {"method": "rrr", "label": "Plain"}, "resnet": {}},
            "experiments.mnist.methods: the rows a, b have one label, 'Plain'; give each its own",
        ),
        ("device", "tpu", "device: Input should be 'auto', 'cpu' or 'cuda', not 'tpu'"),
    ],
)
def test_a_mistake_is_a_sentence(whole, path, value, sentence):
    if path.endswith("params"):
        whole["experiments"]["mnist"]["methods"]["stochastic_isnet"] = {}
    put(whole, path, value)
    with pytest.raises(BenchError) as caught:
        configuration.check(whole, "mine.yaml")
    message = str(caught.value)
    assert message.startswith("mine.yaml")
    assert sentence in message


@pytest.mark.parametrize(("path", "value", "sentence"), WRONG)
def test_a_wrong_configuration_is_a_sentence(whole, path, value, sentence):
    put(whole, path, value)
    with pytest.raises(BenchError) as caught:
        configuration.check(whole, "mine.yaml")
    assert sentence in str(caught.value)


@pytest.mark.parametrize(("path", "value", "sentence"), WRONG_FOR_THEM)
def test_what_only_methods_data_and_backbones_can_tell(whole, path, value, sentence):
    from isnet_bench.methods import settings

    assert len(list(settings.check(configuration.check(whole, "mine.yaml")))) == 5
    put(whole, path, value)
    problems = [problem for _, problem in settings.check(configuration.check(whole, "mine.yaml")) if problem]
    assert len(problems) == 1
    assert sentence in problems[0]


def test_test_sets_of_built_in_data_are_those_that_are_told_of(tmp_path, monkeypatch):
    monkeypatch.setenv("ISNET_BENCH_DATA", str(tmp_path))
    known = {name: set(sets) for name, sets in checking._TEST_SETS.items()}
    few = {"train_images": 10, "val_images": 10, "test_images": 10}
    for name, given in (("mnist", {**few, "download": False}), ("phantom", few), ("xray", {"phantom": few})):
        kind = datasets.known()[name]
        made = kind.make(configuration.fill(kind.settings, given))
        assert set(made.test_sets) <= known[name]
        assert name == "xray" or set(made.test_sets) == known[name]


def test_rows_of_one_method_are_told_apart_by_their_names(whole):
    put(whole, "experiments.mnist.methods", {"resnet": {}, "late": {"method": "resnet"}, "x": {"method": "rrr"}})
    rows = configuration.check(whole, "test").experiments["mnist"].rows
    assert [row.label for row in rows.values()][:2] == ["Standard classifier", "Standard classifier (late)"]
    assert not rows["x"].label.endswith("(x)")


def test_all_mistakes_are_told_at_once(whole):
    put(whole, "experiments.mnist.methods.magic", {})
    put(whole, "experiments.mnist.data.images", 5)
    put(whole, "experiments.mnist.methods.stochastic_isnet", {"params": {"fraction": 1, "heatmap_weight": 2}})
    with pytest.raises(BenchError) as caught:
        configuration.check(whole, "mine.yaml")
    first, *errors = str(caught.value).splitlines()
    assert first == "mine.yaml has 4 errors:"
    assert len(errors) == 4


def test_unreadable_sources(tmp_path):
    with pytest.raises(BenchError, match=r"there is no configuration .*none\.yaml"):
        configuration.load(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("seeds: [0\nexperiments: {")
    with pytest.raises(BenchError, match=r"bad\.yaml cannot be read: .* line 2"):
        configuration.load(tmp_path / "bad.yaml")
    (tmp_path / "wide.yaml").write_text("seeds: [0]", encoding="utf-16")
    with pytest.raises(BenchError, match=r"wide\.yaml is not in UTF-8 \(.*\): save it in UTF-8"):
        configuration.load(tmp_path / "wide.yaml")
    (tmp_path / "empty.yaml").write_text("")
    with pytest.raises(BenchError, match="must be a mapping"):
        configuration.load(tmp_path / "empty.yaml")
    with pytest.raises(BenchError, match="cannot be read"):
        configuration.load('{"seeds": [0}')


def test_a_file_must_be_whole_and_json_text_may_be_a_part(tmp_path):
    part = {"experiments": {"mnist": {"data": {"name": "mnist"}}}}
    assert configuration.load(json.dumps(part)).experiment("mnist").data.name == "mnist"
    (tmp_path / "part.yaml").write_text(yaml.safe_dump(part))
    with pytest.raises(BenchError, match="the configuration lacks the key 'seeds'"):
        configuration.load(tmp_path / "part.yaml")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("seeds: [0]\nseeds: [1]\nexperiments: {}\n", "'seeds' is given twice"),
        ("seeds: [0]\nexperiments: {}\nresults: 2026-01-01\n", None),
        ("seeds: [0]\nexperiments: {}\nresults: 5\n", "results: Input should be a valid string, not 5"),
    ],
)
def test_yaml_without_its_traps(tmp_path, text, sentence):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    if sentence is None:
        assert configuration.load(path).results == "2026-01-01"
    else:
        with pytest.raises(BenchError, match=sentence):
            configuration.load(path)


def test_numbers_with_exponents_are_numbers(tmp_path, whole):
    text = yaml.safe_dump(whole).replace("learning_rate: 0.001", "learning_rate: 5e-3")
    (tmp_path / "mine.yaml").write_text(text)
    assert configuration.load(tmp_path / "mine.yaml").row("mnist", "resnet").training.learning_rate == 5e-3


def test_text_is_read_as_numbers_where_snakemake_leaves_it(whole):
    whole["seeds"], whole["timing"]["rounds"] = ["3", "4"], "2"
    config = configuration.check(whole, "test", strict=False)
    assert (config.seeds, config.case("main").rounds) == ((3, 4), 2)
    with pytest.raises(BenchError, match=r"seeds\.0: Input should be a valid integer, not '3'"):
        configuration.check(whole, "test")


def test_rows(checked):
    row = checked.row("mnist", "long")
    assert (row.id, row.method, row.label) == ("long", "resnet", "Trained longer")
    assert (row.training.epochs, row.training.batch_size, row.training.gradient_clip) == (9, 8, None)
    assert checked.row("mnist", "resnet").label == "Standard classifier"
    with pytest.raises(BenchError, match="unknown method of experiment mnist 'x'; known: long, "):
        checked.row("mnist", "x")
    with pytest.raises(BenchError, match="unknown experiment 'x'; known: mnist, other"):
        checked.row("x", "resnet")


@pytest.mark.parametrize("given", [["resnet"], {"resnet": None}, {"row": {"method": "resnet"}}])
def test_timing_methods_have_the_same_forms(whole, given):
    whole["timing"]["methods"] = given
    (row,) = configuration.check(whole, "test").case("main").rows.values()
    assert (row.id, row.method) == (next(iter(given)), "resnet")


def test_timing_cases_differ_in_what_they_name(whole):
    whole["timing"]["cases"] = {"large": {"image_size": 224, "methods": ["rrr"]}, "same": {}}
    config = configuration.check(whole, "test")
    assert list(config.cases) == ["main", "large", "same"]
    large = config.case("large")
    assert (large.image_size, list(large.rows), large.rounds, large.suffix) == (224, ["rrr"], 2, "_large")
    again = configuration.load(config.part("time", case="large"))
    assert again.case("large") == large
    assert again.part("time", case="large") == config.part("time", case="large")
    with pytest.raises(BenchError, match="unknown timing case 'larg'; did you mean 'large'"):
        config.case("larg")
    whole["timing"]["cases"]["main"] = {}
    with pytest.raises(BenchError, match="'main' is taken"):
        configuration.check(whole, "test")


def test_rows_that_explain_the_same_share_a_relevance_range(whole):
    rows = whole["experiments"]["mnist"]["methods"]
    rows["given"] = {"method": "stochastic_isnet", "params": {"c1": 1.0, "c2": 25.0}}
    rows["twin"] = {"method": "stochastic_isnet", "label": "Twin", "params": {"heatmap_weight": 0.5}}
    rows["top"] = {"method": "stochastic_isnet", "params": {"p_top": 1.0, "heatmap_weight": 0.5}}
    config = configuration.check(whole, "test")
    ids = {row: config.range_id("mnist", row) for row in config.experiment("mnist").rows}
    assert ids["resnet"] is ids["long"] is ids["given"] is None
    assert ids["stochastic_isnet"] == ids["twin"] != ids["top"]

    twin = config.part("range", "mnist", "twin")
    assert twin == config.part("range", "mnist", "stochastic_isnet")
    assert configuration.load(twin).range_id("mnist", ids["twin"]) == ids["twin"]
    top = part(config, "range", "mnist", "top")["experiments"]["mnist"]["methods"][ids["top"]]
    assert top["params"] == {"p_top": 1.0}


@pytest.mark.parametrize(("epochs", "wanted"), [(30, 4), (2, 2)])
def test_the_classifier_of_the_ranges_is_a_short_plain_training(whole, epochs, wanted):
    whole["experiments"]["mnist"]["training"]["epochs"] = epochs
    config = configuration.load(configuration.check(whole, "test").part("range_classifier", "mnist"))
    (row,) = config.experiment("mnist").rows.values()
    assert (row.id, row.method, row.params) == ("range_classifier", "resnet", {})
    assert row.training.epochs == wanted


@pytest.mark.parametrize("verb", ["prepare", "range", "train", "evaluate", "report"])
def test_a_part_is_a_configuration_and_has_itself_as_part(checked, verb):
    row = "stochastic_isnet" if verb in ("range", "train", "evaluate") else None
    text = checked.part(verb, "mnist", row)
    again = configuration.load(text)
    assert again.part(verb, "mnist", row and next(iter(again.experiment("mnist").rows))) == text


def test_a_part_holds_what_its_job_depends_on(whole, checked):
    train = part(checked, "train", "mnist", "long")
    assert set(train) == {"experiments"}, "no more than what the configuration says is there"
    assert list(train["experiments"]) == ["mnist"]
    assert train["experiments"]["mnist"]["methods"] == {"long": {"method": "resnet", "training": {"epochs": 9}}}
    assert set(part(checked, "prepare", "mnist")["experiments"]["mnist"]) == {"data"}
    assert part(checked, "report", "mnist")["seeds"] == [0, 1]
    assert set(part(checked, "time", case="main")) == {"timing"}
    with pytest.raises(BenchError, match="unknown experiment"):
        checked.part("train", "x")


def test_looks_are_no_part_of_a_training(whole, checked):
    whole["experiments"]["mnist"]["methods"]["long"] |= {"label": "Other", "color": "red", "marker": "s"}
    changed = configuration.check(whole, "test")
    assert changed.part("train", "mnist", "long") == checked.part("train", "mnist", "long")
    assert changed.part("report", "mnist") != checked.part("report", "mnist")


def test_the_schema_knows_the_keys_and_their_bounds(whole):
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(Path(models.__file__).with_name("schema.json").read_text())
    jsonschema.validate(whole, schema)
    put(whole, "experiments.mnist.training.epochs", 0)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(whole, schema)


def test_no_torch_is_needed():
    code = "import sys; from isnet_bench import config; config.load('config/smoke.yaml'); print('torch' in sys.modules)"
    root = CONFIGS[0].parents[1]
    answer = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"


def test_a_file_outside_is_asked_for_in_a_process_of_its_own(monkeypatch):
    asked = []

    def run(command, **options):
        asked.append(command[2:])
        return subprocess.CompletedProcess(command, 1, "", "line\nerror: mine.py: no such file")

    monkeypatch.setattr(catalog.subprocess, "run", run)
    with pytest.raises(BenchError, match=r"methods and data sets cannot be listed: error: mine\.py: no such file"):
        catalog.read(["mine.py"])
    assert asked == [["isnet_bench", "catalog", "--plugins", "mine.py"]]


@pytest.mark.parametrize("file", ["baselines/backgrounds.py", "isnet_bench/data/bias.py", "isnet/variants.py"])
def test_the_catalogue_is_asked_for_where_a_shared_file_has_changed(tmp_path, monkeypatch, file):
    for pattern in catalog._SOURCES:
        for path in catalog._ROOT.glob(pattern):
            copied = tmp_path / path.relative_to(catalog._ROOT)
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copied)
    built_in = json.loads(catalog.FILE.read_text(encoding="utf-8"))
    asked = []
    monkeypatch.setattr(catalog, "_ROOT", tmp_path)
    monkeypatch.setattr(catalog, "_ask", lambda plugins: asked.append(plugins) or built_in)
    catalog.read()
    assert asked == []
    changed = tmp_path / file
    changed.write_text(changed.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    catalog.read()
    assert asked == [()]
