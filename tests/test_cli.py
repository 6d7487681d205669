"""The command line: its verbs, its default places, and how it says that something is wrong."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from isnet_bench import cli, data, evaluation, ranges, timing, training, tuning
from isnet_bench import config as configuration
from isnet_bench.reporting import (
    comparison,
    figures,
    outputs,
    publishing,
    tables,
    timing_figures,
    timing_page,
    tradeoff,
)

ROOT = Path(__file__).resolve().parents[1]
STAGES = [
    (data, "prepare"),
    (ranges, "train_classifier"),
    (ranges, "measure"),
    (tuning, "select"),
    (training, "train"),
    (evaluation, "evaluate"),
    (evaluation, "mediate"),
    (timing, "run"),
    (timing, "table"),
    (tables, "write"),
    (comparison, "write"),
    (figures, "accuracy"),
    (figures, "heatmaps"),
    (timing_figures, "time"),
    (timing_figures, "memory"),
    (timing_page, "write"),
    (tradeoff, "draw"),
    (outputs, "redraw"),
    (publishing, "publish"),
]


@pytest.fixture
def stages(monkeypatch):
    """Stage -> the arguments it was last called with; nothing is computed."""
    called = {}
    for module, name in STAGES:
        stage = f"{module.__name__.removeprefix('isnet_bench.')}.{name}"
        monkeypatch.setattr(module, name, lambda *given, stage=stage: called.__setitem__(stage, given))
    return called


@pytest.fixture
def config(tmp_path, monkeypatch):
    """Path of a configuration whose results lie in a folder of their own."""
    monkeypatch.chdir(tmp_path)
    settings = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())
    Path("mine.yaml").write_text(yaml.safe_dump({**settings, "results": "out"}, sort_keys=False))
    return "mine.yaml"


RANGE_ID = configuration.range_id(configuration.load(ROOT / "config" / "smoke.yaml"), "mnist", "stochastic_isnet")
RUN = ["--experiment", "mnist", "--method", "stochastic_isnet", "--seed", "3"]


@pytest.mark.parametrize(
    ("words", "stage", "places"),
    [
        (["prepare", "--experiment", "mnist"], "data.prepare", ["out/data/mnist"]),
        (
            ["range", *RUN],
            "ranges.train_classifier",
            ["out/data/mnist", "out/mnist/range/classifier/seed3"],
        ),
        (
            ["range", *RUN],
            "ranges.measure",
            ["out/data/mnist", "out/mnist/range/classifier/seed3", f"out/mnist/range/{RANGE_ID}/seed3.json"],
        ),
        (
            ["train", *RUN],
            "training.train",
            ["out/data/mnist", "out/mnist/stochastic_isnet/seed3", f"out/mnist/range/{RANGE_ID}/seed3.json"],
        ),
        (["evaluate", *RUN], "evaluation.evaluate", ["out/data/mnist", "out/mnist/stochastic_isnet/seed3"]),
        (["mediate", *RUN], "evaluation.mediate", ["out/data/mnist", "out/mnist/stochastic_isnet/seed3"]),
        (["tune"], "tuning.select", ["out", "out/tables/tuning"]),
        (["time"], "timing.table", ["out/timing/training_step.json", "out/tables/timing.csv"]),
        (["tables", "--experiment", "mnist"], "reporting.tables.write", ["out", "out/tables/mnist"]),
        (["tables", "--experiment", "mnist"], "reporting.comparison.write", ["out", "out/tables/mnist_comparison"]),
        (
            ["figures", "--kind", "accuracy", "--experiment", "mnist"],
            "reporting.figures.accuracy",
            ["out", "out/figures/mnist_accuracy"],
        ),
        (
            ["figures", "--kind", "heatmaps", "--experiment", "mnist"],
            "reporting.figures.heatmaps",
            ["out", "out/figures/mnist_heatmaps"],
        ),
        (
            ["figures", "--kind", "tradeoff", "--experiment", "mnist"],
            "reporting.tradeoff.draw",
            ["out", "out/figures/mnist_tradeoff"],
        ),
        (
            ["figures", "--kind", "timing"],
            "reporting.timing_figures.time",
            ["out/timing/training_step.json", "out/figures/training_time_vs_classes"],
        ),
        (
            ["figures", "--kind", "memory"],
            "reporting.timing_figures.memory",
            ["out/timing/training_step.json", "out/figures/training_memory_vs_classes"],
        ),
        (["page"], "reporting.timing_page.write", ["out/timing/training_step.json", "out/tables/timing.html"]),
        (["redraw"], "reporting.outputs.redraw", ["out"]),
        (["publish"], "reporting.publishing.publish", ["out", "out/published"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_default_places_are_those_of_the_workflow(stages, config, words, stage, places):
    assert cli.main([*words, "--config", config]) == 0
    assert [str(given) for given in stages[stage] if isinstance(given, Path)] == places


def test_given_places_are_used(stages, config):
    words = ["train", "--config", config, *RUN, "--data", "d", "--range", "r.json", "--out", "o"]
    assert cli.main(words) == 0
    assert set(stages) == {"training.train"}
    assert stages["training.train"][1:] == (
        "mnist",
        "stochastic_isnet",
        3,
        Path("d"),
        Path("o"),
        Path("r.json"),
    )


def test_training_prepares_and_measures_first_what_is_missing(stages, config, caplog):
    assert cli.main(["train", "--config", config, *RUN]) == 0
    assert list(stages) == ["data.prepare", "ranges.train_classifier", "ranges.measure", "training.train"]
    assert "out/data/mnist holds no data yet, so they are prepared first" in caplog.text
    assert "the relevance range is measured first" in caplog.text

    stages.clear()
    Path("out/data/mnist").mkdir(parents=True)
    Path("out/data/mnist/data.json").touch()
    assert cli.main(["train", "--config", config, *RUN[:2], "--method", "resnet", "--seed", "0"]) == 0
    assert list(stages) == ["training.train"]
    assert stages["training.train"][-1] is None


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["prepare", "--experiment", "mnist", "--config", "none.yaml"],
            "there is no configuration none.yaml",
        ),
        (["train", "--experiment", "x", "--method", "resnet", "--seed", "0"], "unknown experiment: 'x'"),
        (
            ["train", "--experiment", "mnist", "--method", "x", "--seed", "0"],
            "unknown method of experiment mnist: 'x'",
        ),
        (["figures", "--kind", "accuracy"], "--kind accuracy needs --experiment"),
        (
            ["range", "--experiment", "mnist", "--method", "resnet", "--seed", "0"],
            "method resnet of experiment mnist needs no relevance range",
        ),
        (["tables", "--experiment", "x"], "unknown experiment: 'x'"),
        (["prepare", "--experiment", "x"], "unknown experiment: 'x'"),
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
    assert "is no seed" in capsys.readouterr().err


def test_module_runs_and_names_its_verbs():
    run = subprocess.run(
        [sys.executable, "-m", "isnet_bench", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for verb in ("prepare", "range", "train", "evaluate", "mediate", "study", "time", "tables", "figures"):
        assert f"    {verb} " in run.stdout
