"""The timing table from made-up pytest-benchmark files, what is measured on tiny calls, and one tiny real run."""

import importlib.util
import json
import sys
import types
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from isnet_bench import cli, measuring, studies, timing
from isnet_bench import config as configuration
from isnet_bench.config import MethodEntry
from isnet_bench.errors import BenchError

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
LABELS = {"resnet": "ResNet", "stochastic_isnet": "Stochastic ISNet", "original_isnet": "Original ISNet"}
CLASSES = (2, 10, 50)
CPU = torch.device("cpu")


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


@pytest.fixture
def config():
    """The smallest timing section, checked."""
    section = {
        "classes": [2],
        "methods": ["resnet"],
        "backbone": {"name": "resnet_small", "options": {}},
        "image_size": 16,
        "batch_size": 2,
        "rounds": 2,
    }
    return configuration.check({"seeds": [0], "device": "cpu", "experiments": {}, "timing": section}, "test")


@pytest.fixture
def bench(monkeypatch):
    """The module benchmarks/conftest.py."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    spec = importlib.util.spec_from_file_location("bench_conftest", BENCHMARKS / "conftest.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
    assert case["growth"] == pytest.approx(11 / 3, rel=1e-5)
    assert (case["peak_memory_mb"], case["memory_ratio"]) == pytest.approx((220, 11))
    assert (case["gflop"], case["gflop_ratio"]) == (1, 1)
    assert (case["rounds"], case["device"], case["threads"]) == (5, "cpu", 2)
    assert (case["operation"], case["backbone"], case["image_size"]) == ("training step", "resnet_small", 28)
    assert list(table[table["method"] == "resnet"]["ratio_to_plain"]) == [1, 1, 1]


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
        ("[]", "not written by pytest-benchmark"),
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


def test_run_times_every_case_and_keeps_pytest_benchmarks_format(config, tmp_path, caplog):
    operations = ["training step", "heatmaps", "heatmap loss", "inference"]
    config["timing"] |= {"methods": ["resnet", "stochastic_isnet"]}
    config["timing"] |= {"studies": {"parts": {"operations": operations, "batch_size": 3}}}
    out = tmp_path / "timing" / "training_step.json"
    with caplog.at_level("INFO"):
        timing.run(config, out, "parts")
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


def test_a_study_is_the_section_but_for_what_it_names(config):
    config["timing"]["studies"] = {"large": {"image_size": 64, "methods": ["stochastic_isnet"]}}
    config = configuration.check(config, "test")
    assert studies.names(config) == ["main", "large"]
    large = studies.settings(config, "large")
    assert (large["image_size"], large["batch_size"], large["operations"]) == (64, 2, ["training step"])
    assert studies.settings(config)["image_size"] == 16
    assert [entry.row for entry in configuration.timing_entries(config, "large")] == ["stochastic_isnet"]
    assert (studies.suffix("main"), studies.suffix("large")) == ("", "_large")
    with pytest.raises(BenchError, match="unknown timing study 'huge'; the configuration has: main, large"):
        studies.settings(config, "huge")


def test_the_part_of_a_study_is_a_configuration_that_another_study_does_not_change(config):
    config["timing"]["studies"] = {"large": {"image_size": 64}, "huge": {"image_size": 128}}
    part = configuration.prune(config, verb="time", study="large")
    assert list(part["timing"]["studies"]) == ["large"]
    again = configuration.load(json.dumps(part))
    assert studies.settings(again, "large") == studies.settings(config, "large")
    assert configuration.prune(again, verb="time", study="large") == part
    assert "studies" not in configuration.prune(config, verb="time", study="main")["timing"]


@pytest.mark.parametrize(
    ("section", "sentence"),
    [
        ({"large": {"rouds": 3}}, "unknown key 'rouds' in timing.studies.large; known keys: backbone, batch_size, "),
        ({"large": {"methods": ["magic"]}}, "timing.studies.large.methods.magic: unknown method 'magic'"),
        ({"main": {}}, "timing.studies: 'main' is taken"),
        ({"large": {"operations": ["sleep"]}}, "timing.studies.large.operations.0: 'sleep' is not one of"),
    ],
)
def test_wrong_studies_are_one_sentence(config, section, sentence):
    config["timing"]["studies"] = section
    with pytest.raises(BenchError, match=sentence):
        configuration.check(config, "test")


def test_command_line_times_every_study_or_the_named_one(config, tmp_path, monkeypatch, capsys):
    timed = []
    monkeypatch.setattr(timing, "run", lambda config, out, study: timed.append((study, out.name)))
    monkeypatch.setattr(timing, "table", lambda json, out: timed.append(out.name))
    config["timing"]["studies"] = {"large": {"image_size": 64}}
    given = json.dumps({**config, "results": str(tmp_path)})
    assert cli.main(["time", "--config", given]) == 0
    assert timed == [
        ("main", "training_step.json"), "timing.csv", ("large", "training_step_large.json"), "timing_large.csv",
    ]  # fmt: skip
    timed.clear()
    assert cli.main(["time", "--config", given, "--study", "large", "--table", "mine.csv"]) == 0
    assert timed == [("large", "training_step_large.json"), "mine.csv"]
    assert cli.main(["time", "--config", given, "--out", "one.json"]) == 2
    assert "one.json is a place for one timing study; say which with --study: main, large" in capsys.readouterr().err


def test_cases_beyond_the_limits_are_neither_timed_nor_tried_with_more_classes(bench, config):
    limits = bench.limiting.Limits(seconds=1e-9)
    entry = MethodEntry("resnet", "resnet", "ResNet", {}, {})
    benchmark = types.SimpleNamespace(extra_info={}, pedantic=lambda *_, **__: pytest.fail("it was timed"))
    settings = studies.settings(config)
    for classes, said in ((2, "it takes .* more than 1e-09 s"), (10, "with as many or fewer classes")):
        case = bench.Case("training step", 0, 1, classes, entry)
        with pytest.raises(pytest.skip.Exception, match=said):
            bench.time_case(benchmark, case, settings, CPU, limits, bench.operations.TrainingStep)
    assert [(case["method"], case["classes"]) for case in limits.refused] == [("resnet", 2), ("resnet", 10)]
    other = bench.Case("inference", 0, 1, 2, entry)
    assert limits.before(other.operation, other.entry.row, other.classes) is None


def test_a_case_that_its_predecessors_foretell_to_be_too_slow_or_too_large_is_not_tried(bench):
    limits = bench.limiting.Limits(seconds=10, memory=100 * 2**30)
    slow, large = ("training step", "slow"), ("training step", "large")
    for classes in (2, 10):
        assert limits.before(*slow, classes) is None
        limits.note(*slow, classes, 0.1 * classes, 2**30)
        limits.note(*large, classes, 0.1, classes * 2**30)
    assert limits.before(*slow, 99) is None
    assert limits.before(*slow, 101) == "it would take about 10.1 s, more than 10 s"
    assert limits.before(*large, 101) == "it would need about 101 GiB, more than 100 GiB"
    assert limits.before(*large, 150) == "with as many or fewer classes it takes too much already"
    assert [case["classes"] for case in limits.refused] == [101, 101, 150]
    # In later sweeps the cases come again.
    assert limits.before(*slow, 10) is None
    assert limits.before(*slow, 101) is not None
    assert len(limits.refused) == 3


def test_a_gpu_that_is_too_small_is_a_limit_too(bench, config):
    def kind(*_):
        raise torch.OutOfMemoryError("no room")

    limits = bench.limiting.Limits()
    case = bench.Case("training step", 0, 1, 2, MethodEntry("resnet", "resnet", "ResNet", {}, {}))
    with pytest.raises(pytest.skip.Exception, match="does not fit into the GPU's memory"):
        bench.time_case(types.SimpleNamespace(extra_info={}), case, studies.settings(config), CPU, limits, kind)
    assert [case["classes"] for case in limits.refused] == [2]


def test_operation_count_of_the_isnets(bench, config):
    """One map costs as much as a plain step: 2 x plain in all, 4 x with the three passes of Dual, C + 1 with C maps."""
    settings = {**studies.settings(config), "image_size": 28}

    def flop(method, classes):
        entry = MethodEntry(method, method, method, {}, {})
        return measuring.flop(bench.operations.TrainingStep(entry, classes, settings, CPU))

    plain = flop("resnet", 10)
    for method, bound in (("stochastic_isnet", 2), ("selective_isnet", 2), ("dual_isnet", 4), ("original_isnet", 11)):
        # Besides, the first layer's gradient with respect to the image, which a plain step does without.
        assert flop(method, 10) <= 1.07 * bound * plain, method
    for method in ("stochastic_isnet", "selective_isnet", "dual_isnet"):
        assert flop(method, 100) <= 1.01 * flop(method, 2), method


def test_inference_and_parts_of_an_isnet(bench, config):
    settings = studies.settings(config)
    entry = MethodEntry("dual_isnet", "dual_isnet", "Dual ISNet", {"layers": ("layer1",)}, {})
    assert bench.operations.Inference(entry, 3, settings, CPU).is_backbone()
    assert bench.operations.Heatmaps(entry, 3, settings, CPU)().shape == (2, 2, 1, 16, 16)
    loss = bench.operations.HeatmapLoss(entry, 3, settings, CPU)
    assert [tuple(relevance.shape[:2]) for _, relevance, _ in loss.calls] == [(2, 2), (2, 2)]
    total = loss()
    assert total.isfinite()
    assert total == loss()
    fraction = MethodEntry("f8", "dual_isnet", "Dual", {"heatmap_fraction": 0.125}, {})
    plain = MethodEntry("resnet", "resnet", "ResNet", {}, {})
    kinds = [bench.operations.TrainingStep, bench.operations.Inference, bench.operations.Heatmaps]
    assert [[kind.exists(row) for kind in kinds] for row in (entry, fraction, plain)] == [
        [True, True, True],
        [True, True, False],
        [True, True, False],
    ]


def test_peak_memory_on_the_processor_counts_what_lives_at_the_same_time():
    def one_after_the_other():
        for _ in range(3):
            torch.empty(1_000_000).fill_(1)

    def together():
        kept = [torch.empty(1_000_000).fill_(1) for _ in range(3)]
        return kept

    overhead = 100_000
    assert 4_000_000 <= measuring.peak_memory(one_after_the_other, CPU, 0) < 4_000_000 + overhead
    assert 12_000_500 <= measuring.peak_memory(together, CPU, 500) < 12_000_500 + overhead


def test_storage_that_tensors_share_counts_once():
    whole = torch.zeros(100)
    assert measuring.storage_bytes([whole, whole[:10], whole.view(10, 10), torch.zeros(5)]) == 420


def test_flop_of_a_layer_and_its_gradients_also_with_respect_to_the_image():
    layer = torch.nn.Linear(20, 30)
    images = torch.zeros(5, 20, requires_grad=True)
    forward = 2 * 5 * 20 * 30
    assert measuring.flop(lambda: layer(images)) == forward
    assert measuring.flop(lambda: torch.autograd.grad(layer(images).sum(), images)) == 2 * forward
    with torch.inference_mode():
        assert measuring.flop(lambda: layer(images)) == forward


def test_clock_of_a_gpu_sums_the_times_between_its_events(monkeypatch):
    class Event:
        now = 0.0

        def __init__(self, enable_timing):
            assert enable_timing

        def record(self, stream):
            assert stream == "stream"
            self.waited = False

        def synchronize(self):
            Event.now += 1500.0
            self.at = Event.now

        def elapsed_time(self, later):
            return later.at - self.at

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: "stream")
    clock = measuring.clock(torch.device("cuda", 0))
    assert [clock(), clock(), clock()] == [0, 1.5, 3.0]
