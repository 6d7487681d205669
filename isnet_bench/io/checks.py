"""Checks of other people's code: each says in a sentence what it finds wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

Subject = TypeVar("Subject")


class Failure(Exception):
    """What a check finds wrong."""


def require(holds: object, otherwise: str) -> None:
    """Raise `Failure` unless something holds."""
    if not holds:
        raise Failure(otherwise)


def require_settings(kind: type, what: str) -> None:
    """Raise `Failure` unless a type is a frozen pydantic dataclass."""
    sound = hasattr(kind, "__pydantic_fields__") and kind.__dataclass_params__.frozen
    require(sound, f"its {what} must be a frozen pydantic dataclass")


def problem_of(check: Callable[[Subject], None], subject: Subject) -> str:
    """Return what a check of something finds wrong, empty if nothing."""
    try:
        check(subject)
    except Failure as failure:
        return str(failure)
    # What is checked is another's, and any error of its is what the check is to find.
    except Exception as error:
        return " ".join(f"{type(error).__name__}: {error}".split())
    return ""
