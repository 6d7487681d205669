"""The floors: a file imports from its own floor or a lower one, modules form no circle."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OWN = {
    "isnet": {"isnet"},
    "baselines": {"baselines", "isnet"},
    "isnet_bench": {"isnet_bench", "baselines", "isnet"},
}
# What the library and the baselines may know of the outside; the benchmark may use all of pyproject.toml.
OUTSIDE = {"isnet": {"torch", "torchvision", "timm"}, "baselines": {"torch", "torchvision", "timm"}}
FILES = sorted(path for package in OWN for path in (ROOT / package).rglob("*.py"))


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in FILES}


def imports(path):
    """Dotted names that a file imports; ``from a import b`` gives a.b where that is a module."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield inner if inner in MODULES else base


def is_standard(name):
    import sys

    return name.split(".")[0] in sys.stdlib_module_names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down(path):
    package = path.relative_to(ROOT).parts[0]
    tops = {name.split(".")[0] for name in imports(path) if not is_standard(name)}
    assert tops & set(OWN) <= OWN[package]
    if package in OUTSIDE:
        assert tops - set(OWN) <= OUTSIDE[package]


def test_only_main_knows_the_command_line():
    users = {module for module, path in MODULES.items() if "isnet_bench.cli" in imports(path)}
    assert users == {"isnet_bench.__main__"}


def test_modules_form_no_circle():
    graph = {module: {name for name in imports(path) if name in MODULES} for module, path in MODULES.items()}
    list(TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle


def test_the_workflow_knows_the_command_line_and_the_configuration_only():
    for path in [ROOT / "Snakefile", *(ROOT / "workflow").rglob("*.smk")]:
        text = path.read_text(encoding="utf-8")
        assert not re.findall(r"^\s*(?:import|from) +(?:isnet|baselines)\b", text, flags=re.MULTILINE)
        used = re.findall(r"^from (isnet_bench.*)$", text, flags=re.MULTILINE)
        assert set(used) <= {
            "isnet_bench import config as configuration",
            "isnet_bench.errors import BenchError",
        }
