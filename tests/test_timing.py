"""The timing table and figure from made-up pytest-benchmark files, and one real run at the smallest size."""

import importlib.util
import json
import sys
import types
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from isnet_bench import timing
from isnet_bench.config import MethodEntry
from isnet_bench.errors import BenchError
from isnet_bench.reporting import figures, style

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
LABELS = {"resnet": "ResNet", "stochastic_isnet": "Stochastic ISNet", "original_isnet": "Original ISNet"}
CLASSES = (2, 10, 50)


def _seconds(method, classes):
    return {"resnet": 0.01, "stochastic_isnet": 0.022, "original_isnet": 0.01 * (classes + 1)}[method]


def _entry(method, classes, sweep, seconds):
    info = {
        "measures": "training step",
        "method": method,
        "label": LABELS[method],
        "classes": classes,
        "sweep": sweep,
        "backbone": "resnet_small",
        "batch_size": 16,
        "image_size": 28,
        "device": "cpu",
        "threads": 2,
    }
    return {"name": "test_training_step", "extra_info": info, "stats": {"data": seconds}}


@pytest.fixture
def measured(tmp_path):
    """Two sweeps: three rounds around the true time, then two, of which one was disturbed."""
    benchmarks = [
        _entry(method, classes, sweep, [factor * _seconds(method, classes) for factor in factors])
        for sweep, factors in enumerate([(1.0, 0.9, 1.1), (1.0, 7.0)])
        for classes in CLASSES
        for method in LABELS
    ]
    other = {"name": "something else", "extra_info": {}, "stats": {"data": [1.0]}}
    path = tmp_path / "training_step.json"
    path.write_text(json.dumps({"benchmarks": [*benchmarks, other]}), encoding="utf-8")
    return path


@pytest.fixture
def config():
    """The smallest timing section."""
    return {
        "seeds": [0],
        "device": "cpu",
        "experiments": {},
        "timing": {
            "classes": [2],
            "methods": ["resnet"],
            "backbone": {"name": "resnet_small", "options": {}},
            "image_size": 16,
            "batch_size": 2,
            "rounds": 2,
        },
    }


@pytest.fixture
def drawn(monkeypatch):
    figs = []
    monkeypatch.setattr(style, "save", lambda fig, prefix: figs.append(fig))
    return figs


def test_table_takes_medians_over_the_rounds_of_all_sweeps(measured, tmp_path):
    timing.table(measured, tmp_path / "tables" / "timing.csv")
    table = pd.read_csv(tmp_path / "tables" / "timing.csv")
    assert list(table.columns[:9]) == [
        "method", "label", "classes", "median_seconds", "iqr_seconds", "ratio_to_plain", "rounds", "device",
        "threads",
    ]  # fmt: skip
    assert list(table["method"]) == [method for method in LABELS for _ in CLASSES]
    assert list(table["classes"]) == [*CLASSES] * len(LABELS)
    case = table.set_index(["method", "classes"]).loc[("original_isnet", 10)]
    assert case["median_seconds"] == pytest.approx(0.11)
    assert case["iqr_seconds"] == pytest.approx(0.011)
    assert case["min_seconds"] == pytest.approx(0.099)
    assert case["ratio_to_plain"] == pytest.approx(11)
    assert (case["rounds"], case["device"], case["threads"]) == (5, "cpu", 2)
    assert list(table[table["method"] == "resnet"]["ratio_to_plain"]) == [1, 1, 1]


def test_ratio_is_empty_where_plain_was_not_timed(measured, tmp_path):
    content = json.loads(measured.read_text())
    plain_at_50 = {"method": "resnet", "classes": 50}.items()
    content["benchmarks"] = [entry for entry in content["benchmarks"] if not plain_at_50 <= entry["extra_info"].items()]
    measured.write_text(json.dumps(content))
    table = timing.summary(measured).set_index(["method", "classes"])
    assert np.isnan(table.loc[("stochastic_isnet", 50), "ratio_to_plain"])
    assert table.loc[("stochastic_isnet", 10), "ratio_to_plain"] == pytest.approx(2.2)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "is missing"),
        ("{", "cannot be read"),
        ("{}", "not written by pytest-benchmark"),
        ('{"benchmarks": []}', "holds no training step"),
    ],
)
def test_unreadable_timing_is_an_error_that_says_how_to_make_it(tmp_path, content, said):
    path = tmp_path / "training_step.json"
    if content:
        path.write_text(content)
    with pytest.raises(BenchError, match=said) as caught:
        timing.table(path, tmp_path / "timing.csv")
    assert f"python -m isnet_bench time --config YOUR.yaml --out {path}" in str(caught.value)
    assert not (tmp_path / "timing.csv").exists()


def test_figure_is_log_log_with_guides(measured, config, drawn, tmp_path):
    config["timing"]["methods"] = {row: {"label": LABELS[row]} for row in reversed(LABELS)}
    figures.timing(config, measured, tmp_path / "training_time_vs_classes")
    (panel,) = drawn[0].axes
    assert (panel.get_xscale(), panel.get_yscale()) == ("log", "log")
    lines = {line.get_label(): line for line in panel.lines}
    np.testing.assert_allclose(lines["Original ISNet"].get_ydata(), [30, 110, 510])
    np.testing.assert_allclose(lines["Stochastic ISNet"].get_ydata(), 22)
    guides = [line.get_ydata() for line in panel.lines if line.get_color() == style.GREY]
    np.testing.assert_allclose(guides, [[30, 30, 30], [30, 150, 750]])
    whiskers = panel.collections[0].get_segments()
    np.testing.assert_allclose([bar[:, 1] for bar in whiskers], [[10, 11]] * 3)
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == [
        "ResNet", "Original ISNet", "Stochastic ISNet",
    ]  # fmt: skip
    title = " ".join(drawn[0].get_suptitle().split())
    assert "resnet_small, batch of 16 random 28 × 28 images, CPU, 2 threads" in title


def test_figure_misses_no_configured_method(measured, config, tmp_path):
    config["timing"]["methods"] = ["resnet", "dual_isnet"]
    with pytest.raises(BenchError, match="holds no step of dual_isnet; make it with"):
        figures.timing(config, measured, tmp_path / "training_time_vs_classes")


def test_run_times_every_case_and_keeps_pytest_benchmarks_format(config, tmp_path, caplog):
    out = tmp_path / "timing" / "training_step.json"
    with caplog.at_level("INFO"):
        timing.run(config, out)
    content = json.loads(out.read_text())
    assert {"machine_info", "benchmarks", "version"} <= content.keys()
    assert "node" not in content["machine_info"]
    (case,) = timing.summary(out).to_dict("records")
    assert (case["method"], case["classes"], case["rounds"]) == ("resnet", 2, 2)
    assert case["median_seconds"] > 0
    assert "test_training_step" in caplog.text
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_failing_benchmarks_are_an_error_with_the_end_of_what_they_said(config, tmp_path, monkeypatch):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nseq 100\necho the backbone is unknown >&2\nexit 3\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    out = tmp_path / "timing" / "training_step.json"
    out.parent.mkdir()
    out.write_text("earlier")
    with pytest.raises(BenchError, match=r"ended with status 3(.|\n)*\n99\n100\nthe backbone is unknown") as caught:
        timing.run(config, out)
    assert "\n50\n" not in str(caught.value)
    assert out.read_text() == "earlier"
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_a_row_over_the_time_limit_is_not_timed_nor_tried_with_more_classes(config):
    spec = importlib.util.spec_from_file_location("training_step", BENCHMARKS / "test_training_step.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    settings = {**config["timing"], "step_limit_seconds": 1e-9}
    entry = MethodEntry("resnet", "resnet", "ResNet", {}, {})
    over = set()
    benchmark = types.SimpleNamespace(pedantic=lambda *_, **__: pytest.fail("it was timed"))
    for classes, said in ((2, "with 2 classes"), (10, "with fewer classes already")):
        case = types.SimpleNamespace(entry=entry, classes=classes)
        with pytest.raises(pytest.skip.Exception, match=said):
            module.test_training_step(benchmark, case, settings, torch.device("cpu"), over)
    assert over == {"resnet"}
