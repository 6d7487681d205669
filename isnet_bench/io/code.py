"""Digests of code: of Python files and of what they import of this project, found without running any of it."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""Folder of the project's packages."""
_PROJECT = ("isnet", "isnet_bench", "baselines")
# No number depends on how files, messages and configurations are handled.
_WITHOUT_EFFECT = ("isnet_bench.io", "isnet_bench.config", "isnet_bench.layout")


def digest(files: Iterable[str]) -> str:
    """Return a digest of Python files, relative to `ROOT`, and of all that they import, directly or not.

    What counts is this project's code and, of files that lie elsewhere, their own package's or that of their
    neighbours. Comments, docstrings and line breaks do not count. Of a package that only passes a name on, the module
    that defines the name is meant. A file that cannot be read as Python counts by its bytes.
    """
    todo, parts = [ROOT / file for file in files], {}
    while todo:
        path = todo.pop()
        if path not in parts:
            parts[path], imported = _read(path, path.stat().st_mtime_ns)
            todo += imported
    named = sorted(f"{'.'.join(_place(path)[1])} {part}" for path, part in parts.items())
    return hashlib.sha256("\n".join(named).encode()).hexdigest()


@cache
def _read(path: Path, _: int) -> tuple[str, tuple[Path, ...]]:
    """Return the digest of a file of this age without its docstrings, and what it imports."""
    content = path.read_bytes()
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):
        return hashlib.sha256(content).hexdigest(), ()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:] or [ast.Pass()]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest(), tuple(_imported(path, tree))


def _place(path: Path) -> tuple[Path, tuple[str, ...]]:
    """Return the folder from which a file is imported, and the parts of the name of its module."""
    home = path.parent
    while (home / "__init__.py").is_file():
        home = home.parent
    parts = path.relative_to(home).with_suffix("").parts
    return home, parts[:-1] if parts[-1] == "__init__" else parts


def _imported(path: Path, tree: ast.Module) -> Iterator[Path]:
    home, own = _place(path)
    package = own if path.name == "__init__.py" else own[:-1]
    # Beside an installed package lie those of others.
    known = _PROJECT if home == ROOT else (*_PROJECT, own[0]) if package else None
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found = [_find(home, alias.name, known) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*above, *([node.module] if node.module else [])])
            found = [_defining(home, base, alias.name, known) for alias in node.names]
        else:
            continue
        yield from (one for one in found if one is not None)


def _find(home: Path, name: str, known: tuple[str, ...] | None) -> Path | None:
    """Return the file of a module, where it is one that counts."""
    top = name.partition(".")[0]
    if (known is not None and top not in known) or any(f"{name}.".startswith(f"{one}.") for one in _WITHOUT_EFFECT):
        return None
    stem = (ROOT if top in _PROJECT else home) / name.replace(".", "/")
    return next((file for file in (stem.with_suffix(".py"), stem / "__init__.py") if file.is_file()), None)


def _defining(home: Path, module: str, name: str, known: tuple[str, ...] | None) -> Path | None:
    """Return the file that defines what ``from module import name`` gives."""
    inner, path = _find(home, f"{module}.{name}", known), _find(home, module, known)
    if inner is not None or path is None or path.name != "__init__.py":
        return inner or path
    for node in ast.parse(path.read_bytes()).body:
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return _defining(home, node.module, alias.name, known) or path
    return path
