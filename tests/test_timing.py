"""The timing table from made-up pytest-benchmark files, and one tiny real run."""

import json
import sys
from unittest.mock import call, create_autospec

import numpy as np
import pandas as pd
import pytest
import small_timing

from isnet_bench import cli
from isnet_bench import config as configuration
from isnet_bench.io.errors import BenchError
from isnet_bench.layout import Layout
from isnet_bench.reporting import timing_reports
from isnet_bench.timing import summary as timing

LABELS = {"resnet": "ResNet", "stochastic_isnet": "Stochastic ISNet", "original_isnet": "Original ISNet"}
CLASSES = (2, 10, 50)

given = small_timing.given


def _seconds(method, classes):
    return {"resnet": 0.01, "stochastic_isnet": 0.022, "original_isnet": 0.01 * (classes + 1)}[method]


def _entry(method, classes, sweep, seconds, measures="training step", **constants):
    info = {
        "measures": measures,
        "method": method,
        "label": LABELS[method],
        "classes": classes,
        "sweep": sweep,
        "backbone": "resnet_small",
        "batch_size": 16,
        "image_size": 28,
        "channels": 1,
        "device": "cpu",
        "threads": 2,
        **constants,
    }
    return {"name": "test_training_step", "extra_info": info, "stats": {"data": seconds}}


def _write(path, entries, **more):
    path.write_text(json.dumps({"benchmarks": entries, **more}), encoding="utf-8")
    return path


@pytest.fixture
def measured(tmp_path):
    """Two sweeps: three rounds around the true time, then two, of which one was disturbed; constants in the first."""
    entries = [
        _entry(
            method,
            classes,
            sweep,
            [factor * _seconds(method, classes) for factor in factors],
            **({"peak_memory_bytes": 2e9 * _seconds(method, classes), "flop": 10**9} if sweep == 0 else {}),
        )
        for sweep, factors in enumerate([(1.0, 0.9, 1.1), (1.0, 7.0)])
        for classes in CLASSES
        for method in LABELS
    ]
    other = {"name": "something else", "extra_info": {}, "stats": {"data": [1.0]}}
    return _write(tmp_path / "training_step.json", [*entries, other])


def test_table_takes_medians_over_the_rounds_of_all_sweeps(measured, tmp_path):
    timing_reports.write(measured, tmp_path / "tables" / "timing")
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
    assert case["growth"] == pytest.approx(11 / 3, rel=1e-5)
    assert (case["peak_memory_mb"], case["memory_ratio"]) == pytest.approx((220, 11))
    assert (case["gflop"], case["gflop_ratio"]) == (1, 1)
    assert (case["rounds"], case["device"], case["threads"]) == (5, "cpu", 2)
    assert (case["operation"], case["backbone"], case["image_size"]) == ("training step", "resnet_small", 28)
    assert list(table[table["method"] == "resnet"]["ratio_to_plain"]) == [1, 1, 1]


def test_people_see_the_steps_with_a_column_for_each_number_of_classes(measured, tmp_path):
    timing_reports.write(measured, tmp_path / "timing")
    text = (tmp_path / "timing.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line[:1] == "|"]
    assert rows[0] == ["Method", "2 classes", "10 classes", "50 classes"]
    assert rows[4::5] == [
        ["Original ISNet", "30.0", "110.0", "510.0"],
        ["Original ISNet", "3.00", "11.00", "51.00"],
        ["Original ISNet", "60.0", "220.0", "1,020.0"],
    ]
    assert text.startswith("Training steps against the number of classes: resnet_small, batch of 16 random")
    assert "h2" in (tmp_path / "timing.html").read_text(encoding="utf-8")


def test_ratios_are_taken_within_a_sweep_since_the_machine_may_slow_down(tmp_path):
    plain, isnet = (1.0, 3.0, 3.0), (2.0, 6.3, 2.4)
    entries = [
        _entry(method, 2, sweep, [seconds])
        for sweep, pair in enumerate(zip(plain, isnet, strict=True))
        for method, seconds in zip(("resnet", "stochastic_isnet"), pair, strict=True)
    ]
    table = timing.summary(_write(tmp_path / "t.json", entries)).set_index("method")
    assert table.loc["stochastic_isnet", "median_seconds"] == pytest.approx(2.4)
    assert table.loc["stochastic_isnet", "ratio_to_plain"] == pytest.approx(2.0)


def test_parts_of_a_step_are_compared_with_the_plain_step_and_come_after_the_steps(tmp_path):
    entries = [
        _entry("resnet", 2, 0, [0.3], "inference"),
        _entry("stochastic_isnet", 2, 0, [0.15], "inference"),
        _entry("stochastic_isnet", 2, 0, [0.6], "heatmaps"),
        _entry("resnet", 2, 0, [1.0]),
    ]
    table = timing.summary(_write(tmp_path / "t.json", entries[-1:] + entries[:-1])).set_index(["operation", "method"])
    assert list(table.index.get_level_values(0)) == ["training step", "inference", "inference", "heatmaps"]
    assert table.loc[("heatmaps", "stochastic_isnet"), "ratio_to_plain"] == pytest.approx(0.6)
    assert table.loc[("inference", "stochastic_isnet"), "ratio_to_plain"] == pytest.approx(0.5)
    assert table["peak_memory_mb"].isna().all()


def test_ratio_is_empty_where_plain_was_not_timed(measured, tmp_path):
    content = json.loads(measured.read_text())
    plain_at_50 = {"method": "resnet", "classes": 50}.items()
    content["benchmarks"] = [entry for entry in content["benchmarks"] if not plain_at_50 <= entry["extra_info"].items()]
    measured.write_text(json.dumps(content))
    table = timing.summary(measured).set_index(["method", "classes"])
    assert np.isnan(table.loc[("stochastic_isnet", 50), "ratio_to_plain"])
    assert np.isnan(table.loc[("stochastic_isnet", 50), "memory_ratio"])
    assert table.loc[("stochastic_isnet", 10), "ratio_to_plain"] == pytest.approx(2.2)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "is missing"),
        ("{", "cannot be read"),
        ("{}", "not written by pytest-benchmark"),
        ("[]", "not a JSON object"),
        ('{"benchmarks": []}', "holds no training step"),
    ],
)
def test_unreadable_timing_is_an_error_that_says_how_to_make_it(tmp_path, content, said):
    path = tmp_path / "training_step.json"
    if content:
        path.write_text(content)
    with pytest.raises(BenchError, match=said) as caught:
        timing_reports.write(path, tmp_path / "timing")
    assert "python -m isnet_bench time --config YOUR.yaml" in str(caught.value)
    assert not (tmp_path / "timing.csv").exists()


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_slope_of_a_power_of_the_classes(power):
    classes = np.array([2, 5, 10, 100, 1000])
    assert timing.slope(classes, 0.3 * classes**power) == pytest.approx(power, abs=1e-12)
    assert np.isnan(timing.slope([2], [0.3]))


def test_extrapolation_goes_on_straight():
    classes = np.array([2, 5, 10, 20])
    np.testing.assert_allclose(timing.extrapolate(classes, 0.4 + 0.3 * classes, [50, 1000]), [15.4, 300.4])
    # Errors count by their share: one per cent at 2 classes as much as at 20.
    off = (0.4 + 0.3 * classes) * [1, 1, 1, 1.01]
    assert timing.extrapolate(classes, off, [2])[0] == pytest.approx(1.0, rel=2e-3)


@pytest.mark.slow
def test_run_times_every_case_and_keeps_pytest_benchmarks_format(given, tmp_path, caplog):
    operations = ["training step", "heatmaps", "heatmap loss", "inference"]
    given["timing"] |= {"methods": ["resnet", "stochastic_isnet"]}
    given["timing"] |= {"cases": {"parts": {"operations": operations, "batch_size": 3}}}
    out = tmp_path / "timing" / "training_step.json"
    with caplog.at_level("INFO"):
        timing.run(configuration.check(given, "test"), out, "parts")
    content = json.loads(out.read_text())
    assert {"machine_info", "benchmarks", "version"} <= content.keys()
    assert "node" not in content["machine_info"]
    assert content["refused"] == []
    table = timing.summary(out)
    assert [(row.operation, row.method) for row in table.itertuples()] == [
        ("training step", "resnet"),
        ("training step", "stochastic_isnet"),
        ("heatmaps", "stochastic_isnet"),
        ("heatmap loss", "stochastic_isnet"),
        ("inference", "resnet"),
        ("inference", "stochastic_isnet"),
    ]
    assert set(table["rounds"]) == {2}
    assert set(table["batch_size"]) == {3}
    assert (table["median_seconds"] > 0).all()
    steps = table.set_index(["operation", "method"])
    assert 1 < steps.loc[("training step", "stochastic_isnet"), "memory_ratio"] < 2.5
    assert steps.loc[("inference", "stochastic_isnet"), "gflop_ratio"] == 1
    assert "test_training_step" in caplog.text
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_failing_benchmarks_are_an_error_with_the_end_of_what_they_said(given, tmp_path, monkeypatch):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nseq 100\necho the backbone is unknown >&2\nexit 3\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    out = tmp_path / "timing" / "training_step.json"
    out.parent.mkdir()
    out.write_text("earlier")
    with pytest.raises(BenchError, match=r"ended with status 3(.|\n)*\n99\n100\nthe backbone is unknown") as caught:
        timing.run(configuration.check(given, "test"), out, "main")
    assert "\n50\n" not in str(caught.value)
    assert out.read_text() == "earlier"
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_command_line_times_every_case_or_the_named_one(given, tmp_path, monkeypatch, capsys):
    run = create_autospec(timing.run)
    monkeypatch.setattr(timing, "run", run)
    given["timing"]["cases"] = {"large": {"image_size": 64}}
    text = json.dumps({**given, "results": str(tmp_path)})
    cfg, layout = configuration.load(text), Layout(tmp_path)
    assert cli.main(["time", "--config", text]) == 0
    places = [layout.timing(cfg.case(case).suffix) for case in ("main", "large")]
    assert run.call_args_list == [call(cfg, places[0], "main"), call(cfg, places[1], "large")]
    run.reset_mock()
    assert cli.main(["time", "--config", text, "--case", "large"]) == 0
    run.assert_called_once_with(cfg, places[1], "large")
    assert cli.main(["timing", "--config", json.dumps({"seeds": [0], "experiments": {}})]) == 2
    assert "no key timing" in capsys.readouterr().err
