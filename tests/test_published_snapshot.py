"""The committed snapshots: every table and figure in them comes out of their own numbers."""

import shutil
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from isnet_bench import config as configuration
from isnet_bench.reporting import outputs

PUBLISHED = Path(__file__).resolve().parents[1] / "results" / "published"
# The record of the choice tells when and with what it was made; it is copied, not drawn.
COPIED = {"tuning.json"}


SNAPSHOTS = sorted(path.parent for path in PUBLISHED.rglob("config.yaml"))


@pytest.mark.parametrize("snapshot", SNAPSHOTS, ids=lambda path: path.name)
def test_tables_and_figures_are_those_of_the_numbers(snapshot, tmp_path):
    again = tmp_path / "again"
    shutil.copytree(snapshot, again, ignore=shutil.ignore_patterns("tables", "figures", "config.yaml"))
    outputs.redraw(configuration.load(snapshot / "config.yaml"), again)
    for part in ("tables", "figures"):
        committed = {path.name for path in (snapshot / part).iterdir()} - COPIED
        assert {path.name for path in (again / part).iterdir()} == committed
        for name in sorted(committed):
            ours, theirs = again / part / name, snapshot / part / name
            if name.endswith(".png"):
                np.testing.assert_array_equal(matplotlib.image.imread(ours), matplotlib.image.imread(theirs), name)
            elif not name.endswith(".pdf"):
                assert ours.read_bytes() == theirs.read_bytes(), name


def test_there_are_snapshots():
    assert PUBLISHED in SNAPSHOTS
