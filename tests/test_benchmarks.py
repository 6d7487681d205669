"""Cases that take too much, the operations that are timed, and what is measured on tiny calls."""

import importlib.util
import types
from pathlib import Path

import pytest
import small_timing
import torch

from isnet_bench.config import Row

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
CPU = torch.device("cpu")

given, config = small_timing.given, small_timing.config


def row(method, **params):
    return Row(id=method, method=method, label=method, params=params)


@pytest.fixture
def bench(monkeypatch):
    """The module benchmarks/conftest.py."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    spec = importlib.util.spec_from_file_location("bench_conftest", BENCHMARKS / "conftest.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_cases_beyond_the_limits_are_neither_timed_nor_tried_with_more_classes(bench, config):
    limits = bench.limiting.Limits(seconds=1e-9)
    entry = row("resnet")
    benchmark = types.SimpleNamespace(extra_info={}, pedantic=lambda *_, **__: pytest.fail("it was timed"))
    settings = config.case("main")
    for classes, said in ((2, "it takes .* more than 1e-09 s"), (10, "with as many or fewer classes")):
        case = bench.Case("training step", 0, 1, classes, entry)
        with pytest.raises(pytest.skip.Exception, match=said):
            bench.time_case(benchmark, case, settings, CPU, limits, bench.operations.TrainingStep)
    assert [(case["method"], case["classes"]) for case in limits.refused] == [("resnet", 2), ("resnet", 10)]
    other = bench.Case("inference", 0, 1, 2, entry)
    assert limits.before(other.operation, other.entry.id, other.classes) is None


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
    case = bench.Case("training step", 0, 1, 2, row("resnet"))
    with pytest.raises(pytest.skip.Exception, match="does not fit into the GPU's memory"):
        bench.time_case(types.SimpleNamespace(extra_info={}), case, config.case("main"), CPU, limits, kind)
    assert [case["classes"] for case in limits.refused] == [2]


@pytest.mark.slow
def test_operation_count_of_the_isnets(bench, config):
    """One map costs as much as a plain step: 2 x plain in all, 4 x with the three passes of Dual, C + 1 with C maps."""
    settings = config.case("main").model_copy(update={"image_size": 28})

    def flop(method, classes, **params):
        entry = row(method, **params)
        return bench.measuring.flop(bench.operations.TrainingStep(entry, classes, settings, CPU))

    plain = flop("resnet", 10)
    for method, bound in (("stochastic_isnet", 2), ("selective_isnet", 2), ("dual_isnet", 4), ("original_isnet", 11)):
        # Besides, the first layer's gradient with respect to the image, which a plain step does without.
        assert flop(method, 10) <= 1.07 * bound * plain, method
    for method in ("stochastic_isnet", "selective_isnet", "dual_isnet", "original_isnet"):
        assert flop(method, 10, inactive_slope=0.3) == flop(method, 10), method
    # With heatmaps of a part of the batch, that part's maps are all that is added: the forward pass is one for both.
    for method, maps in (("stochastic_isnet", 1), ("selective_isnet", 1), ("dual_isnet", 3), ("original_isnet", 10)):
        assert flop(method, 10, heatmap_fraction=0.5) <= 1.07 * (1 + maps / 2) * plain, method
    for method in ("stochastic_isnet", "selective_isnet", "dual_isnet"):
        assert flop(method, 100) <= 1.01 * flop(method, 2), method


def test_inference_and_parts_of_an_isnet(bench, config):
    settings = config.case("main")
    entry = row("dual_isnet", layers=["layer1"])
    assert bench.operations.Inference(entry, 3, settings, CPU).is_backbone()
    assert bench.operations.Heatmaps(entry, 3, settings, CPU)().shape == (2, 2, 1, 16, 16)
    loss = bench.operations.HeatmapLoss(entry, 3, settings, CPU)
    assert [tuple(relevance.shape[:2]) for _, relevance, _ in loss.calls] == [(2, 2), (2, 2)]
    total = loss()
    assert total.isfinite()
    assert total == loss()
    # Without deep supervision the maps come one after the other.
    loss = bench.operations.HeatmapLoss(row("original_isnet"), 3, settings, CPU)
    assert [tuple(relevance.shape[:2]) for _, relevance, *_ in loss.calls] == [(2, 1)] * 3
    assert [maps for *_, maps in loss.calls] == [slice(i, i + 1) for i in range(3)]
    assert loss().isfinite()
    fraction = row("dual_isnet", heatmap_fraction=0.125)
    plain = row("resnet")
    kinds = [bench.operations.TrainingStep, bench.operations.Inference, bench.operations.Heatmaps]
    assert [[kind.exists(row) for kind in kinds] for row in (entry, fraction, plain)] == [
        [True, True, True],
        [True, True, False],
        [True, True, False],
    ]


def test_peak_memory_on_the_processor_counts_what_lives_at_the_same_time(bench):
    def one_after_the_other():
        for _ in range(3):
            torch.empty(1_000_000).fill_(1)

    def together():
        kept = [torch.empty(1_000_000).fill_(1) for _ in range(3)]
        return kept

    overhead = 100_000
    assert 4_000_000 <= bench.measuring.peak_memory(one_after_the_other, CPU, 0) < 4_000_000 + overhead
    assert 12_000_500 <= bench.measuring.peak_memory(together, CPU, 500) < 12_000_500 + overhead


def test_storage_that_tensors_share_counts_once(bench):
    whole = torch.zeros(100)
    assert bench.measuring.storage_bytes([whole, whole[:10], whole.view(10, 10), torch.zeros(5)]) == 420


def test_flop_of_a_layer_and_its_gradients_also_with_respect_to_the_image(bench):
    layer = torch.nn.Linear(20, 30)
    images = torch.zeros(5, 20, requires_grad=True)
    forward = 2 * 5 * 20 * 30
    assert bench.measuring.flop(lambda: layer(images)) == forward
    assert bench.measuring.flop(lambda: torch.autograd.grad(layer(images).sum(), images)) == 2 * forward
    with torch.inference_mode():
        assert bench.measuring.flop(lambda: layer(images)) == forward


def test_clock_of_a_gpu_sums_the_times_between_its_events(bench, monkeypatch):
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
    clock = bench.measuring.clock(torch.device("cuda", 0))
    assert [clock(), clock(), clock()] == [0, 1.5, 3.0]
