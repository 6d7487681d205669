"""Files that are either whole or absent."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from isnet_bench.io.errors import BenchError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside ``path``, with its suffix; move the file there to ``path`` if all went well.

    Raises BenchError if the folder cannot be made or written to.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise BenchError(f"{path} cannot be written ({error}): free the space or choose another folder") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write ``content`` as indented JSON. NaN and infinities are refused with a ValueError."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """Read a JSON object. Raises what `reading` raises."""
    with reading(path, remedy):
        return json.loads(path.read_text(encoding="utf-8"))


@contextmanager
def reading(path: Path, remedy: str) -> Iterator[None]:
    """Tell of a file that is missing or damaged in one sentence, which ends with ``remedy``.

    That is a BenchError, in place of what reading it raised.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise BenchError(f"{path} is missing: {remedy}") from error
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        # Pydantic adds an address to what it says.
        said = " ".join(str(error).split()).partition(" For further information")[0]
        raise BenchError(f"{path} cannot be read ({said}): {remedy}") from error
