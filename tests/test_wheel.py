"""The wheel, made of the sdist and unpacked into an empty place: what a user has who has no clone."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import outside
import pages
import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = "README.md", "docs/few_masks.md"
SNIPPETS = [
    pytest.param(snippet, id=f"{page}-{number}")
    for page in PAGES
    for number, snippet in enumerate(pages.blocks(page, "python"))
]
# timm imports torchvision, whose compiled part may not fit the torch that the tests run with.
INPUTS = """
import torch
from isnet_bench.io import torchvision_shim
torchvision_shim.ensure()
images, masks, labels = torch.rand(2, 3, 64, 64), torch.ones(2, 1, 64, 64), torch.tensor([0, 2])
loader = [(images, masks, labels)]
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Folder of the unpacked wheel, which is made of the sdist, as `python -m build` makes it."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    for name in ("isnet", "isnet_bench", "baselines"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pack = f"from setuptools import build_meta; print(build_meta.build_sdist({str(built)!r}))"
    subprocess.run([sys.executable, "-c", pack], cwd=source, capture_output=True, check=True, timeout=300)
    (sdist,) = built.glob("*.tar.gz")
    wheel = ["wheel", "--quiet", "--no-build-isolation", "--no-deps", "--wheel-dir", built, sdist]
    subprocess.run([sys.executable, "-m", "pip", *map(str, wheel)], check=True, timeout=300)
    (packed,) = built.glob("*.whl")
    with zipfile.ZipFile(packed) as files:
        files.extractall(built / "site")
    return built / "site"


@pytest.fixture
def run(site, tmp_path):
    """Run Python in an empty folder, where the wheel comes before this repository; return what it says."""

    def run(*arguments):
        environment = os.environ | {"PYTHONPATH": str(site), "ISNET_BENCH_DATA": str(tmp_path)}
        answer = subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
        )
        assert answer.returncode == 0, answer.stderr
        return answer.stdout

    return run


def test_the_library_comes_from_the_wheel_and_needs_torch_alone(run, site):
    code = "import isnet, sys; print(isnet.__file__); print(*sys.modules)"
    place, modules = run("-c", code).splitlines()
    assert Path(place).is_relative_to(site)
    assert not {"timm", "torchvision", "pydantic", "pandas", "lightning", "isnet_bench"} & set(modules.split())


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_snippets_of_the_docs(run, snippet):
    run("-c", INPUTS + snippet)


def test_the_benchmark_runs_from_any_folder(run, site, tmp_path):
    outside.save(tmp_path, *outside.FILES)
    assert Path(run("-c", "import isnet_bench; print(isnet_bench.__file__)").strip()).is_relative_to(site)
    row = ("--config", "own.yaml", "--experiment", "own_bars", "--row", "partial_swap", "--seed", "0")
    run("-m", "isnet_bench", "train", *row)
    run("-m", "isnet_bench", "evaluate", *row)
    assert (tmp_path / "results" / "own" / "own_bars" / "partial_swap" / "seed0" / "metrics.json").is_file()


def test_the_release_has_one_version(site):
    (metadata,) = site.glob("*.dist-info/METADATA")
    version = next(
        line.split()[1] for line in metadata.read_text(encoding="utf-8").splitlines() if line[:8] == "Version:"
    )
    assert f"## {version}\n" in pages.text("CHANGELOG.md")
    assert f"\nversion: {version}\n" in pages.text("CITATION.cff")
