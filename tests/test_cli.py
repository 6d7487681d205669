"""The command line: its verbs, its default places, and how it says that something is wrong."""

import subprocess
import sys
from pathlib import Path
from unittest.mock import create_autospec

import pytest
import yaml

from isnet_bench import cli, data
from isnet_bench import config as configuration
from isnet_bench.evaluation import evaluate as evaluation
from isnet_bench.reporting import collect, outputs, publishing
from isnet_bench.timing import summary as timing
from isnet_bench.training import ranges
from isnet_bench.training import train as training
from isnet_bench.training.runs import Job

ROOT = Path(__file__).resolve().parents[1]
STAGES = [
    (data, "prepare"),
    (ranges, "train_classifier"),
    (ranges, "measure"),
    (training, "train"),
    (evaluation, "evaluate"),
    (evaluation, "mediate"),
    (timing, "run"),
    (collect, "collect"),
    (outputs, "write_tables"),
    (outputs, "write_figure"),
    (outputs, "write_study"),
    (outputs, "write_timing"),
    (outputs, "redraw"),
    (publishing, "publish"),
]


@pytest.fixture
def stages(monkeypatch):
    """Stage -> the arguments it was last called with; nothing is computed, but each call must fit the real stage."""
    called = {}
    for module, name in STAGES:
        stage = f"{module.__name__.removeprefix('isnet_bench.')}.{name}"
        pretended = create_autospec(getattr(module, name))
        pretended.side_effect = lambda *given, stage=stage: called.__setitem__(stage, given)
        monkeypatch.setattr(module, name, pretended)
    return called


@pytest.fixture
def config(tmp_path, monkeypatch):
    """Path of a configuration whose results lie in a folder of their own."""
    monkeypatch.chdir(tmp_path)
    settings = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())
    Path("mine.yaml").write_text(yaml.safe_dump({**settings, "results": "out"}, sort_keys=False))
    return "mine.yaml"


RANGE_ID = configuration.load(ROOT / "config" / "smoke.yaml").range_id("mnist", "stochastic_isnet")
RUN = ["--experiment", "mnist", "--row", "stochastic_isnet", "--seed", "3"]


@pytest.mark.parametrize(
    ("words", "stage", "places"),
    [
        (["prepare", "--experiment", "mnist"], "data.prepare", ["out/data/mnist"]),
        (
            ["range", *RUN],
            "training.ranges.train_classifier",
            ["out/data/mnist", "out/mnist/range/classifier/seed3"],
        ),
        (
            ["range", *RUN],
            "training.ranges.measure",
            ["out/data/mnist", "out/mnist/range/classifier/seed3", f"out/mnist/range/{RANGE_ID}/seed3.json"],
        ),
        (
            ["train", *RUN],
            "training.train.train",
            ["out/data/mnist", "out/mnist/stochastic_isnet/seed3", f"out/mnist/range/{RANGE_ID}/seed3.json"],
        ),
        (["evaluate", *RUN], "evaluation.evaluate.evaluate", ["out/data/mnist", "out/mnist/stochastic_isnet/seed3"]),
        (["mediate", *RUN], "evaluation.evaluate.mediate", ["out/data/mnist", "out/mnist/stochastic_isnet/seed3"]),
        (["collect", "--experiment", "mnist"], "reporting.collect.collect", ["out", "out/collected/mnist"]),
        (["collect", "--study", "fraction"], "reporting.collect.collect", ["out", "out/collected/fraction"]),
        (["tables", "--experiment", "mnist"], "reporting.outputs.write_tables", ["out", "out/tables/mnist"]),
        (
            ["figures", "--kind", "tradeoff", "--experiment", "mnist"],
            "reporting.outputs.write_figure",
            ["out", "out/figures/mnist_tradeoff"],
        ),
        (["study", "--study", "fraction"], "reporting.outputs.write_study", ["out"]),
        (["time"], "timing.summary.run", ["out/timing/training_step_main.json"]),
        (["timing"], "reporting.outputs.write_timing", ["out"]),
        (["redraw"], "reporting.outputs.redraw", ["out"]),
        (["publish"], "reporting.publishing.publish", ["out", "out/published"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_default_places_are_those_of_the_workflow(stages, config, words, stage, places):
    assert cli.main([*words, "--config", config]) == 0
    given = [part.data if isinstance(part, Job) else part for part in stages[stage]]
    assert [str(part) for part in given if str(part).startswith("out")] == places


def test_given_places_are_used(stages, config):
    words = ["train", "--config", config, *RUN, "--data", "d", "--range", "r.json", "--out", "o"]
    assert cli.main(words) == 0
    assert set(stages) == {"training.train.train"}
    job, *places = stages["training.train.train"]
    assert (job.experiment, job.row, job.seed, job.data) == ("mnist", "stochastic_isnet", 3, Path("d"))
    assert places == [Path("o"), Path("r.json")]


def test_training_prepares_and_measures_first_what_is_missing(stages, config, caplog):
    assert cli.main(["train", "--config", config, *RUN]) == 0
    assert list(stages) == [
        "data.prepare",
        "training.ranges.train_classifier",
        "training.ranges.measure",
        "training.train.train",
    ]
    assert "out/data/mnist holds no data yet, so they are prepared first" in caplog.text
    assert "the relevance range is measured first" in caplog.text

    stages.clear()
    Path("out/data/mnist").mkdir(parents=True)
    Path("out/data/mnist/data.json").touch()
    assert cli.main(["train", "--config", config, *RUN[:2], "--method", "resnet", "--seed", "0"]) == 0
    assert list(stages) == ["training.train.train"]
    assert stages["training.train.train"][-1] is None


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["prepare", "--experiment", "mnist", "--config", "none.yaml"],
            "there is no configuration none.yaml",
        ),
        (["train", "--experiment", "x", "--method", "resnet", "--seed", "0"], "unknown experiment 'x'"),
        (
            ["train", "--experiment", "mnist", "--method", "x", "--seed", "0"],
            "unknown method of experiment mnist 'x'",
        ),
        (
            ["range", "--experiment", "mnist", "--method", "resnet", "--seed", "0"],
            "row resnet of experiment mnist needs no relevance range",
        ),
        (["tables", "--experiment", "x"], "unknown experiment 'x'"),
        (["prepare", "--experiment", "x"], "unknown experiment 'x'"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(config, capsys, words, sentence):
    assert cli.main(words if "--config" in words else [*words, "--config", config]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert sentence in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("seed", ["-1", "one", "1.5"])
def test_a_seed_is_a_number_from_0_on(config, capsys, seed):
    with pytest.raises(SystemExit) as caught:
        cli.main(["train", "--experiment", "mnist", "--method", "resnet", f"--seed={seed}"])
    assert caught.value.code == 2
    assert "is not a seed" in capsys.readouterr().err


def test_module_runs_and_names_its_verbs():
    run = subprocess.run(
        [sys.executable, "-m", "isnet_bench", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for verb in ("prepare", "range", "train", "evaluate", "mediate", "collect", "study", "time", "tables", "figures"):
        assert f"    {verb} " in run.stdout


def test_a_missing_package_is_one_sentence_with_the_remedy():
    code = "import runpy, sys; sys.modules['yaml'] = None; runpy.run_module('isnet_bench', run_name='__main__')"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 1
    assert run.stderr.startswith("error: the package yaml is missing; install what the benchmark needs: pip install")
    assert "Traceback" not in run.stderr
