"""What to time, from a timing case: ``pytest benchmarks --bench-config FILE --bench-case NAME``."""

import gc
import math
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import limits as limiting
import measuring
import operations
import pytest
import torch

from isnet_bench import config as configuration
from isnet_bench import methods
from isnet_bench.io.errors import BenchError
from isnet_bench.training import allocator
from isnet_bench.training.runs import device_of

# Every method is timed once per sweep, so that a machine that slows down slows all methods alike.
SWEEPS = 5
# Share of the free memory that one case may take.
MEMORY_SHARE = 0.8
OPERATIONS = {
    "test_training_step": ("training step", operations.TrainingStep),
    "test_heatmaps": ("heatmaps", operations.Heatmaps),
    "test_heatmap_loss": ("heatmap loss", operations.HeatmapLoss),
    "test_inference": ("inference", operations.Inference),
}
LIMITS = pytest.StashKey()


@dataclass(frozen=True)
class Case:
    """One row of a timing case at one number of classes, in one sweep."""

    operation: str
    sweep: int
    rounds: int
    classes: int
    entry: configuration.Row
    plugins: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"sweep{self.sweep}-{self.classes}-{self.entry.id}"

    @property
    def is_isnet(self) -> bool:
        return methods.get(self.entry.method, self.plugins).family == "isnet"


def pytest_addoption(parser):
    smoke = Path(__file__).parents[1] / "config" / "smoke.yaml"
    parser.addoption(
        "--bench-config",
        default=str(smoke),
        help="YAML file or JSON text with a timing section (%(default)s)",
    )
    parser.addoption("--bench-case", default="main", help="timing case (%(default)s)")


def pytest_generate_tests(metafunc):
    if "case" in metafunc.fixturenames:
        metafunc.parametrize("case", _cases(metafunc.config, metafunc.function.__name__), ids=str)


def pytest_collection_modifyitems(config, items):
    timer = measuring.clock(_device(config))
    for item in items:
        item.add_marker(pytest.mark.benchmark(timer=timer))


def pytest_benchmark_update_machine_info(machine_info):
    del machine_info["node"]


def pytest_benchmark_update_json(config, output_json):
    output_json["refused"] = config.stash[LIMITS].refused


@pytest.fixture(scope="session")
def settings(pytestconfig):
    """The timing case."""
    return _settings(pytestconfig)


@pytest.fixture(scope="session")
def device(pytestconfig):
    # What is imported stays; without it, the collections between the cases are quick.
    gc.freeze()
    # As in a training.
    allocator.keep_memory()
    device = _device(pytestconfig)
    # The first convolution on a GPU loads libraries for seconds, which no case is to pay for.
    torch.nn.functional.conv2d(torch.zeros(1, 1, 8, 8, device=device), torch.zeros(1, 1, 3, 3, device=device))
    return device


@pytest.fixture(scope="session")
def limits(pytestconfig, settings, device):
    seconds = settings.step_limit_seconds or math.inf
    found = limiting.Limits(seconds, MEMORY_SHARE * measuring.free_memory(device))
    return pytestconfig.stash.setdefault(LIMITS, found)


@pytest.fixture
def measure(benchmark, case, settings, device, limits):
    """Function that times an operation of the case, and returns the operation."""
    return partial(time_case, benchmark, case, settings, device, limits)


def time_case(benchmark, case, settings, device, limits, kind):
    """Time an operation; the first sweep also measures what does not vary: memory and floating-point operations."""
    name = (case.operation, case.entry.id, case.classes)
    _skip_if(limits.before(*name), case)
    gc.collect()
    try:
        operation = kind(case.entry, case.classes, settings, device, case.plugins)
        seconds = _seconds(operation, measuring.clock(device), limits)
        benchmark.extra_info.update(_description(case, settings, device))
        if case.sweep == 0:
            _skip_if(limits.after(*name, seconds), case)
            constants = _constants(operation, device)
            limits.note(*name, seconds, constants["peak_memory_bytes"])
            benchmark.extra_info.update(constants)
        benchmark.pedantic(operation, rounds=case.rounds, warmup_rounds=settings.warmup - 1)
    except torch.OutOfMemoryError:
        _skip_if(limits.refuse(*name, "it does not fit into the GPU's memory"), case)
    return operation


def _seconds(operation, clock, limits):
    """Seconds of the first call; where those pass the limit, of the second, since the first one makes things ready."""
    start = clock()
    assert operations.is_finite(operation())
    first = clock()
    if first - start <= limits.seconds:
        return first - start
    operation()
    return clock() - first


def _constants(operation, device):
    held = operation.held()
    return {"peak_memory_bytes": measuring.peak_memory(operation, device, held), "flop": measuring.flop(operation)}


def _skip_if(reason, case):
    if reason is not None:
        pytest.skip(f"{case.operation} of {case.entry.id} with {case.classes} classes: {reason}")


def _description(case, settings, device):
    return {
        "measures": case.operation,
        "method": case.entry.id,
        "label": case.entry.label,
        "classes": case.classes,
        "sweep": case.sweep,
        "backbone": settings.backbone.name,
        "batch_size": settings.batch_size,
        "image_size": settings.image_size,
        "channels": settings.channels,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
    }


_load = cache(configuration.load)


@contextmanager
def _usage_errors():
    try:
        yield
    except BenchError as error:
        raise pytest.UsageError(str(error)) from error


def _config(pytestconfig):
    with _usage_errors():
        return _load(pytestconfig.getoption("--bench-config"))


def _device(pytestconfig):
    with _usage_errors():
        return device_of(_config(pytestconfig))


def _settings(pytestconfig):
    with _usage_errors():
        return _config(pytestconfig).case(pytestconfig.getoption("--bench-case"))


def _cases(pytestconfig, test):
    settings, plugins = _settings(pytestconfig), _config(pytestconfig).plugins
    operation, kind = OPERATIONS[test]
    if operation not in settings.operations:
        return []
    sweeps = min(SWEEPS, settings.rounds)
    return [
        Case(operation, sweep, settings.rounds // sweeps + (sweep < settings.rounds % sweeps), classes, entry, plugins)
        for sweep in range(sweeps)
        for classes in sorted(settings.classes)
        for entry in settings.rows.values()
        if kind.exists(entry, plugins)
    ]
