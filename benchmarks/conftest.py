"""The cases to time, from a configuration's timing section: ``pytest benchmarks --bench-config FILE``."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from isnet_bench import config as configuration
from isnet_bench.errors import BenchError
from isnet_bench.training import device_of

# Every method is timed once per sweep, so that a machine that slows down slows all methods alike.
SWEEPS = 5


@dataclass(frozen=True)
class Case:
    """One row of the timing section at one number of classes, in one sweep."""

    sweep: int
    rounds: int
    classes: int
    entry: configuration.MethodEntry

    def __str__(self) -> str:
        return f"sweep{self.sweep}-{self.classes}-{self.entry.row}"


def pytest_addoption(parser):
    smoke = Path(__file__).parents[1] / "config" / "smoke.yaml"
    parser.addoption(
        "--bench-config",
        default=str(smoke),
        help="YAML file or JSON text with a timing section (%(default)s)",
    )


def pytest_generate_tests(metafunc):
    if "case" in metafunc.fixturenames:
        metafunc.parametrize("case", _cases(_config(metafunc.config)), ids=str)


def pytest_benchmark_update_machine_info(machine_info):
    del machine_info["node"]


@pytest.fixture(scope="session")
def settings(pytestconfig):
    """The timing section."""
    return _config(pytestconfig)["timing"]


@pytest.fixture(scope="session")
def device(pytestconfig):
    return device_of(_config(pytestconfig))


@pytest.fixture(scope="session")
def too_slow():
    """Rows that passed the time limit; they are not tried with more classes."""
    return set()


def _config(pytestconfig):
    try:
        return configuration.load(pytestconfig.getoption("--bench-config"))
    except BenchError as error:
        raise pytest.UsageError(str(error)) from error


def _cases(config):
    rounds = config["timing"]["rounds"]
    sweeps = min(SWEEPS, rounds)
    return [
        Case(sweep, rounds // sweeps + (sweep < rounds % sweeps), classes, entry)
        for sweep in range(sweeps)
        for classes in sorted(config["timing"]["classes"])
        for entry in configuration.timing_entries(config)
    ]
