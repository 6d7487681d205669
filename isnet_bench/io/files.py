"""Files that are either whole or absent."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from isnet_bench.io.errors import BenchError

_TEMPORARY = re.compile(r"\.(.+)\.[0-9]+(\.[a-z]+)")
_LOCK = ".lock"
_SEAL = "sha256"
UNREADABLE = (OSError, ValueError, LookupError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error)
"""What libraries raise when a file is damaged."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside ``path``, with its suffix; move the file there to ``path`` if all went well.

    What processes that were killed left of the same file half written is removed; it has one writer at a time.
    Raises BenchError if the folder cannot be made or written to.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear(path.parent, path.name)
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
    """Write ``content`` as indented JSON, with a digest of it by which `load_json` notices a change.

    NaN and infinities are refused with a ValueError.
    """
    sealed = {**content, _SEAL: _seal(content)}
    write_text(path, json.dumps(sealed, indent=2, allow_nan=False) + "\n")


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """Read a JSON object. Raises what `reading` raises."""
    with reading(path, remedy):
        return load_json(path)


def load_json(path: Path) -> dict[str, Any]:
    """Return a JSON object without its digest, if it has one. Raises ValueError if that is the digest of another."""
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError("it is not a JSON object")
    seal = content.pop(_SEAL, None)
    if seal not in (None, _seal(content)):
        raise ValueError("it was changed after it was written")
    return content


def _seal(content: Mapping[str, Any]) -> str:
    # Twice, since only what was read has the order and the types that JSON gives it.
    read = json.loads(json.dumps({key: value for key, value in content.items() if key != _SEAL}))
    return hashlib.sha256(json.dumps(read, sort_keys=True).encode()).hexdigest()


@contextmanager
def reading(path: Path, remedy: str) -> Iterator[None]:
    """Tell of a file that is missing or damaged in one sentence, which ends with ``remedy``.

    That is a BenchError, in place of what reading it raised.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise BenchError(f"{path} is missing: {remedy}") from error
    except UNREADABLE as error:
        # Pydantic adds an address to what it says.
        said = " ".join(str(error).split()).partition(" For further information")[0]
        raise BenchError(f"{path} cannot be read ({said}): {remedy}") from error


def digest(path: Path) -> str:
    """Return the SHA-256 digest of a file, as hexadecimal text."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digests(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Return the digests of files in a folder, by name."""
    return {name: digest(folder / name) for name in names}


def verify(folder: Path, known: Mapping[str, str], remedy: str) -> None:
    """Raise BenchError, which ends with ``remedy``, if a file in a folder has not the digest that is known of it.

    A file that is missing is left to whoever reads it.
    """
    for name, expected in known.items():
        if (folder / name).is_file() and digest(folder / name) != expected:
            raise BenchError(f"{folder / name} is damaged, or belongs to something else: {remedy}")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Work in a folder alone, and without what a process that was killed there left half written.

    The lock ends with its process, however that ends. Raises BenchError if another process holds it, or if the folder
    cannot be made or written to.
    """
    path, new = folder / _LOCK, not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = _held(path)
        _clear(folder)
    except OSError as error:
        raise BenchError(f"{path} cannot be written ({error}): free the space or choose another folder") from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        file.close()
        if new and not any(folder.iterdir()):
            folder.rmdir()


def _clear(folder: Path, name: str | None = None) -> None:
    """Remove temporary files, of one file or of all in a folder."""
    for left in folder.iterdir():
        found = _TEMPORARY.fullmatch(left.name)
        if found and name in (None, "".join(found.groups())):
            left.unlink(missing_ok=True)


def _held(path: Path) -> IO[str]:
    """Open a lock's file, and hold it; the file names the process."""
    while True:
        file = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read() or "another process"
            file.close()
            raise BenchError(f"{holder} is using {path.parent}: wait until it has ended, or end it") from error
        # Whoever held it before may have removed it between the two.
        if os.fstat(file.fileno()).st_nlink:
            file.truncate(0)
            file.write(f"process {os.getpid()} on {platform.node()}")
            file.flush()
            return file
        file.close()
