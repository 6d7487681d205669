"""The archive for a data repository: what is in it, its checksums, and what stops it."""

import hashlib
import subprocess
import tarfile

import pytest
import reporting_runs

from isnet_bench.io.errors import BenchError
from isnet_bench.reporting import archive

bench = reporting_runs.bench


@pytest.fixture
def made(bench, tmp_path):
    """Results with weights, a snapshot, and the place of the archive."""
    for weights in (run.parent / "weights.safetensors" for run in tmp_path.rglob("metrics.json")):
        weights.write_bytes(b"weights of " + weights.parent.name.encode())
    published = tmp_path / "published"
    published.mkdir()
    (published / "scores.csv").write_text("a\n1\n")
    return bench.root, published, tmp_path / "build" / "all.tar"


def test_an_archive_holds_every_finished_run_and_nothing_that_shows_images(made, bench):
    unfinished = bench.run("resnet", 2) / "metrics.json"
    unfinished.unlink()
    archive.archive(*made)
    with tarfile.open(made[2]) as whole:
        names = whole.getnames()
        content = whole.extractfile("runs/mnist/resnet/seed1/weights.safetensors").read()
    assert content == b"weights of seed1"
    assert len(names) == 1 + 1 + 5 * (3 * len(reporting_runs.LABELS) - 1)
    assert "runs/mnist/resnet/seed2/weights.safetensors" not in names
    assert not [name for name in names if "heatmaps" in name]


def test_checksums_are_those_that_sha256sum_finds(made, tmp_path):
    archive.archive(*made)
    with tarfile.open(made[2]) as whole:
        whole.extractall(tmp_path / "unpacked", filter="data")
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", archive.SUMS], cwd=tmp_path / "unpacked", check=True)
    told = (made[2].parent / "all.tar.sha256").read_text().split()
    assert told == [hashlib.sha256(made[2].read_bytes()).hexdigest(), "all.tar"]


def test_the_same_files_make_the_same_archive(made):
    archive.archive(*made)
    first = made[2].read_bytes()
    for path in made[0].rglob("metrics.json"):
        path.touch()
    archive.archive(*made)
    assert made[2].read_bytes() == first


def test_what_is_missing_is_named_and_nothing_is_written(made, bench):
    (bench.run("resnet", 0) / "weights.safetensors").unlink()
    with pytest.raises(BenchError, match=r"resnet/seed0/weights.safetensors missing"):
        archive.archive(*made)
    (made[1] / "scores.csv").unlink()
    with pytest.raises(BenchError, match="publish first"):
        archive.archive(*made)
    with pytest.raises(BenchError, match="no finished run"):
        archive.archive(made[1], made[1], made[2])
    assert not made[2].exists()
