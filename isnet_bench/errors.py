"""The error that a user can mend, and how its sentence is put together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

__all__ = ["BenchError", "listed", "located"]


class BenchError(Exception):
    """What the user asked for cannot be done.

    The message is one sentence: what is wrong, where, and the remedy.
    """


@contextmanager
def located(place: str) -> Iterator[None]:
    """Put a place before the message of a `BenchError` raised inside."""
    try:
        yield
    except BenchError as error:
        raise BenchError(f"{place}: {error}") from error


def listed(names: Iterable[str]) -> str:
    """Return names in alphabetical order, as text."""
    return ", ".join(sorted(names)) or "none"
