"""The error that a user can mend, and how its sentence is put together."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

Thing = TypeVar("Thing")


class BenchError(Exception):
    """What the user asked for cannot be done.

    The message is one sentence: what is wrong, where, and the remedy.
    """


def listed(names: Iterable[str]) -> str:
    """Return names in alphabetical order, as text."""
    return ", ".join(sorted(names)) or "none"


def unknown(what: str, name: object, known: Iterable[str]) -> str:
    """Return the sentence about a name that does not exist: the nearest one that does, and all of them."""
    near = difflib.get_close_matches(str(name), list(known), n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"unknown {what} {name!r}; {hint}known: {listed(known)}"


def pick(what: str, name: str, known: Mapping[str, Thing]) -> Thing:
    """Return the thing of a name. Raises BenchError if there is none; those that there are are listed."""
    if name not in known:
        raise BenchError(unknown(what, name, known))
    return known[name]
