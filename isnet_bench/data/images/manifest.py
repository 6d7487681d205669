"""Manifests: CSV files with one line for each image, and what may be wrong with them.

Paths in a manifest are relative to its folder and lead downwards from there.
"""

from __future__ import annotations

import difflib
import logging
import warnings
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path, PurePath

import pandas as pd

from isnet_bench.io.errors import BenchError

log = logging.getLogger(__name__)

_MOST_LOGGED = 20


def read(path: Path, columns: Sequence[str], optional: Sequence[str] = ()) -> pd.DataFrame:
    """Read a manifest, CSV in UTF-8: its text in these columns, empty cells as ""; optional ones may be missing, too.

    The index, named ``line``, is the line in the file, where the header is line 1. Raises BenchError if the file is
    missing, cannot be read as such a table, lacks a column or has no rows.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(
                path, dtype=str, keep_default_na=False, index_col=False, skip_blank_lines=False, encoding="utf-8-sig"
            )
    except FileNotFoundError as error:
        raise BenchError(
            f"there is no manifest {path}: put it there, or let ISNET_BENCH_DATA name the folder above it"
        ) from error
    except (OSError, ValueError, pd.errors.ParserWarning) as error:
        reason = " ".join(str(error).split())
        raise BenchError(f"{path} cannot be read as CSV in UTF-8 with as many cells in each line ({reason})") from error
    table.columns = table.columns.str.strip()
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise BenchError(
            f"{path} lacks the column {missing[0]!r}; it needs {', '.join(columns)}, and has {', '.join(table.columns)}"
        )
    table = table.reindex(columns=[*columns, *optional], fill_value="").apply(lambda cells: cells.str.strip())
    table.index = pd.RangeIndex(2, len(table) + 2, name="line")
    table = table[(table != "").any(axis=1)]
    if table.empty:
        raise BenchError(f"{path} has a header but no rows: add one for each image")
    return table


def refuse(problems: Iterable[str]) -> None:
    """Raise BenchError with the first of some problems, sentences, if there is any, and log them all."""
    found = list(problems)
    if not found:
        return
    if len(found) == 1:
        raise BenchError(found[0])
    for problem in found[:_MOST_LOGGED]:
        log.error(problem)
    raise BenchError(f"{found[0]} (the first of {len(found)} such problems, see the log)")


def misspelt(table: pd.DataFrame, path: Path, column: str, known: Collection[str], remedy: str) -> Iterator[str]:
    """Find cells of a column that have none of the known values; a similar one is suggested."""
    for line, value in table[column].items():
        if value in known:
            continue
        # Case is the commonest mistake, and difflib takes letters of another case for other letters.
        folded = {name.casefold(): name for name in known}
        close = difflib.get_close_matches(value.casefold(), folded, n=1)
        suggestion = f"did you mean {folded[close[0]]!r}?" if close else remedy
        yield f"{path}, line {line}: the {column} {value!r} is none of {', '.join(known)}; {suggestion}"


def misplaced(
    table: pd.DataFrame, path: Path, column: str, root: Path, optional: bool = False, folder: Path | None = None
) -> Iterator[str]:
    """Find paths in a column that lead elsewhere or to nothing; where `optional`, a cell may be empty.

    They are relative to `folder`, if it is given, and else to the manifest's.
    """
    folder = path.parent if folder is None else folder
    inside = [home.resolve() for home in (root, folder)]
    for line, name in table[column].items():
        place = f"{path}, line {line}: the {column}"
        if not name:
            if not optional:
                yield f"{place} is missing; write its path, or delete the line"
            continue
        file = locate(folder / path.name, name)
        if file is not None and not file.is_file():
            yield f"{place} {file} does not exist; put it there, or correct the line"
        elif file is None or not any(file.resolve().is_relative_to(home) for home in inside):
            yield (
                f"{place} {name} lies outside the data root {root}, or is an absolute path or one with '..'; write one "
                f"that leads down from the folder {folder}"
            )


def locate(path: Path, name: str) -> Path | None:
    """Return the file that a manifest names; None where its name does not lead down from the manifest's folder."""
    steps = PurePath(name)
    return None if steps.is_absolute() or ".." in steps.parts else path.parent / steps


def require_inside(name: str) -> None:
    """Raise ValueError if a manifest's name does not lead down from the data root."""
    if locate(Path("manifest"), name) is None:
        raise ValueError(
            f"manifest must lead down from the data root, and {name} does not; let ISNET_BENCH_DATA name another data "
            "root"
        )


def require_classes(labels: Sequence[str]) -> None:
    """Raise ValueError if labels are not the names of two or more classes."""
    if len(set(labels)) < max(2, len(labels)) or not all(labels):
        raise ValueError(f"labels must be two or more different names, not {list(labels)}")
