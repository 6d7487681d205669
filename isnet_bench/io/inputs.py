"""The files below the data root, and the digest by which a change of them is noticed without reading them all."""

from __future__ import annotations

import csv
import glob
import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from isnet_bench.io import files

_ROOT = "ISNET_BENCH_DATA"
_LISTED = ("image", "mask")


def data_root() -> Path:
    """Return the folder that holds all data: the environment variable ISNET_BENCH_DATA, else ``data``."""
    return Path(os.environ.get(_ROOT, "data"))


def nothing_there(path: Path) -> bool:
    """Say whether neither a manifest below the data root is there, nor its folder, so that other data may stand in.

    A folder without the manifest is a slip of the pen: whoever made it wants those data.
    """
    return not (path.is_symlink() or path.exists() or (path.parent != data_root() and path.parent.exists()))


@contextmanager
def data_root_at(folder: Path | None) -> Iterator[None]:
    """Let another folder hold all data meanwhile, here and in processes that are started; None: it stays."""
    before = os.environ.get(_ROOT)
    if folder is not None:
        os.environ[_ROOT] = str(folder)
    try:
        yield
    finally:
        os.environ.pop(_ROOT, None)
        if before is not None:
            os.environ[_ROOT] = before


def digest(patterns: Iterable[str], folder: Path | None = None) -> str:
    """Return a digest of the data root and of the files below it that fit patterns, as `glob.glob` has them.

    A file counts by its name, size and time of change, or by its content where the environment variable
    ISNET_BENCH_HASH is set. A CSV file counts by its content; so do the files that its columns image and mask name,
    relative to `folder`, or else to its own.
    """
    root = data_root()
    found = {Path(path) for pattern in patterns for path in glob.glob(str(root / pattern), recursive=True)}
    for path in sorted(path for path in found if path.suffix == ".csv" and path.is_file()):
        found |= {(folder or path.parent) / name for name in _listed(path)}
    lines = [str(root), *(f"{os.path.relpath(path, root)} {_state(path)}" for path in sorted(found))]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _listed(path: Path) -> Iterator[str]:
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        for row in csv.DictReader(file, skipinitialspace=True):
            yield from (name.strip() for name in map(row.get, _LISTED) if name)


def _state(path: Path) -> str:
    try:
        if path.suffix == ".csv" or os.environ.get("ISNET_BENCH_HASH"):
            return files.digest(path)
        found = path.stat()
    except OSError:
        return "missing"
    return f"{found.st_size} {found.st_mtime_ns}"
