"""The floors of the house: a file imports from lower floors only, and modules form no circle."""

import ast
import re
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Folder or file -> floor; the longest name that fits counts.
FLOORS = {
    "isnet": 0,
    "isnet_bench": 1,
    "isnet_bench.io": 1,
    "isnet_bench.layout": 1,
    "isnet_bench.config": 1,
    "isnet_bench.data": 2,
    "isnet_bench.methods": 2,
    "baselines": 2,
    "isnet_bench.training": 3,
    "isnet_bench.evaluation": 3,
    "isnet_bench.reporting": 4,
    "isnet_bench.timing": 4,
    "isnet_bench.cli": 5,
    "isnet_bench.__main__": 5,
}
# What the lower floors may know of the outside; the others may use all of pyproject.toml.
OUTSIDE = {
    "isnet": {"torch"},
    "baselines": {"torch", "torchvision", "timm", "pydantic"},
    "isnet_bench.config": {"pydantic", "yaml", "jsonschema"},
    "isnet_bench.io": {"psutil", "torch"},
    "isnet_bench.layout": set(),
}
FILES = sorted(path for package in ("isnet", "baselines", "isnet_bench") for path in (ROOT / package).rglob("*.py"))


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in FILES}


def place(module, places):
    """The folder or file of the house that a module belongs to."""
    found = [name for name in places if module == name or module.startswith(f"{name}.")]
    return max(found, key=len, default=None)


def imports(path, top=False):
    """Dotted names that a file imports, or imports as soon as it is imported itself.

    ``from a import b`` gives a.b where that is a module.
    """
    package = path.relative_to(ROOT).parent.parts
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body if top else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield inner if inner in MODULES else base


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down(path):
    module = module_name(path)
    own = place(module, FLOORS)
    for name in imports(path):
        other = place(name, FLOORS)
        if other is not None and not (own == other or FLOORS[other] < FLOORS[own]):
            # Neighbours of one floor may know each other as long as they form no circle, which is tested below.
            assert FLOORS[other] == FLOORS[own], f"{module} is on floor {FLOORS[own]} and imports {name}"
    outside = {name.split(".")[0] for name in imports(path) if place(name, FLOORS) is None}
    allowed = OUTSIDE.get(place(module, OUTSIDE))
    if allowed is not None:
        assert outside - sys.stdlib_module_names <= allowed


def test_floor_1_needs_no_torch():
    for module, path in MODULES.items():
        if FLOORS[place(module, FLOORS)] == 1:
            assert "torch" not in {name.split(".")[0] for name in imports(path, top=True)}, module


def test_the_root_of_the_bench_holds_four_files():
    assert {path.name for path in (ROOT / "isnet_bench").glob("*.py")} == {
        "__init__.py",
        "__main__.py",
        "cli.py",
        "layout.py",
    }


def test_only_main_knows_the_command_line():
    users = {module for module, path in MODULES.items() if "isnet_bench.cli" in imports(path)}
    assert users == {"isnet_bench.__main__"}


@pytest.mark.parametrize("of", ["modules", "places"])
def test_there_is_no_circle(of):
    graph = {}
    for module, path in MODULES.items():
        own = module if of == "modules" else place(module, FLOORS)
        found = (name for name in imports(path) if name in MODULES)
        others = {name if of == "modules" else place(name, FLOORS) for name in found}
        graph.setdefault(own, set()).update(others - {own})
    list(TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle


def test_only_the_layout_spells_paths_below_the_results():
    spelled = re.compile(r"\bf?[\"'](?:seed\{seed|tables/|figures/|collected/|training_step)")
    for module, path in MODULES.items():
        if module != "isnet_bench.layout":
            assert not spelled.findall(path.read_text(encoding="utf-8")), module


def test_the_workflow_knows_the_first_floor_and_the_command_line():
    for path in [ROOT / "Snakefile", ROOT / "workflow" / "Snakefile", *(ROOT / "workflow").rglob("*.smk")]:
        text = path.read_text(encoding="utf-8")
        used = re.findall(r"^\s*(?:from|import) +((?:isnet|baselines)\S*(?: import .*)?)$", text, flags=re.MULTILINE)
        assert set(used) <= {
            "isnet_bench import config as configuration",
            "isnet_bench import layout",
            "isnet_bench.io.errors import BenchError",
        }
        known = r"\bworkflow\.(?!cores\b|configfiles\b|rst\b|resource_settings\.cores\b)"
        # workflow.cores is an error where a cluster's own limits hold.
        assert not re.findall(known, text), "only the documented part of `workflow`"
