"""environment.yml, pyproject.toml and constraints.txt agree, and say what is installed and imported."""

import ast
import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
LINES = [
    line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if not line.startswith("#")
]
PINS = {canonicalize_name(name): version for name, version in (line.split("==") for line in LINES)}
LIBRARY = [Requirement(text) for text in PROJECT["dependencies"]]
RUNTIME = LIBRARY + [Requirement(text) for text in EXTRAS["bench"]]
DIRECT = LIBRARY + [Requirement(text) for texts in EXTRAS.values() for text in texts]
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
PYTHONS = ["3.11", "3.12", "3.13"]


def test_constraints_pin_each_package_once_and_publicly():
    assert len(PINS) == len(LINES)
    for line in LINES:
        assert re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][A-Za-z0-9.]*", line), line


@pytest.mark.parametrize("requirement", DIRECT, ids=str)
def test_every_direct_requirement_is_pinned_within_its_range_and_installed(requirement):
    pin = PINS[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(pin)
    assert Version(metadata.version(requirement.name)).public == pin


def test_every_transitive_requirement_is_pinned():
    seen, waiting = set(), list(DIRECT)
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in seen:
            continue
        seen.add(name)
        assert name in PINS, f"{name} is missing in constraints.txt"
        extras = requirement.extras or {""}
        for text in metadata.requires(name) or []:
            inner = Requirement(text)
            if not inner.marker or any(inner.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append(inner)
    assert len(seen) > 80


def test_conda_environment_installs_the_same_pins():
    *conda, pip = CONDA["dependencies"]
    assert pip == {"pip": ["--constraint constraints.txt", "--editable .[bench,workflow,test,docs]"]}
    assert set(EXTRAS) == {"bench", "workflow", "test", "docs"}
    python = next(text for text in conda if text.startswith("python "))
    assert set(conda) - {python} == {"pip", "make"}, "packages come from pip, so that there is one set of pins"
    ranges = SpecifierSet(python.removeprefix("python ")), SpecifierSet(PROJECT["requires-python"])
    assert ranges[0] == ranges[1]
    assert [minor for minor in ("3.10", *PYTHONS, "3.14") if minor in ranges[0]] == PYTHONS


def test_make_installs_the_same_pins():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "--constraint constraints.txt --editable '.[bench,workflow,test,docs]'" in re.sub(
        r"\s*\\\n\s*", " ", makefile
    )


def imported(folder):
    """Top-level names of the third-party packages that a folder's files import."""
    own = {path.stem for path in (ROOT / folder).rglob("*.py")} | {"isnet", "baselines", "isnet_bench"}
    names = set()
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names.add(node.module.split(".")[0])
    return names - own - set(sys.stdlib_module_names)


@pytest.mark.parametrize(
    ("folder", "listed"),
    [
        ("isnet", LIBRARY),
        ("baselines", RUNTIME),
        ("isnet_bench", RUNTIME),
        ("benchmarks", RUNTIME),
        ("tests", DIRECT),
        ("docs", DIRECT),
    ],
)
def test_what_is_imported_is_listed(folder, listed):
    names = {canonicalize_name(requirement.name) for requirement in listed}
    distributions = metadata.packages_distributions()
    for name in imported(folder):
        assert names & set(map(canonicalize_name, distributions[name])), f"{folder}/ imports {name}"


def test_snakemakes_own_conda_environment_has_the_same_python_and_pins():
    folder = ROOT / "workflow" / "envs"
    theirs = yaml.safe_load((folder / "isnet-bench.yaml").read_text(encoding="utf-8"))
    assert theirs["channels"] == CONDA["channels"]
    assert set(theirs["dependencies"]) <= {text for text in CONDA["dependencies"] if isinstance(text, str)}
    script = (folder / "isnet-bench.post-deploy.sh").read_text(encoding="utf-8")
    assert "--constraint constraints.txt --editable '.[bench,workflow,test,docs]'" in script
