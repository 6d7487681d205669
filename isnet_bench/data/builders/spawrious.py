"""Spawrious: generated photographs of four breeds of dogs at six places, without masks.

A part is one of its challenges (Lynch, Dovonon, Kaddour, Silva, arXiv:2303.05470): in training each breed has its own
place, and in the tests another one's.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from isnet_bench.data.builders.base import Collection, photographs
from isnet_bench.io.errors import BenchError

_BREEDS = ("bulldog", "dachshund", "labrador", "corgi")
# Places of the breeds in training and in the tests; the place where some of all breeds are in training.
_ONE_TO_ONE = {
    "o2o_easy": (("desert", "jungle", "dirt", "snow"), ("dirt", "snow", "desert", "jungle"), "beach"),
    "o2o_medium": (("mountain", "beach", "dirt", "jungle"), ("jungle", "dirt", "beach", "snow"), "desert"),
    "o2o_hard": (("jungle", "mountain", "snow", "desert"), ("mountain", "snow", "desert", "jungle"), "beach"),
}
_MANY_TO_MANY = {
    "m2m_easy": (("desert", "mountain", "dirt", "jungle"), ("dirt", "jungle", "mountain", "desert")),
    "m2m_medium": (("beach", "snow", "mountain", "desert"), ("desert", "mountain", "beach", "snow")),
    "m2m_hard": (("dirt", "jungle", "snow", "beach"), ("snow", "beach", "dirt", "jungle")),
}
_EACH = 3168
# Of the two training environments, folders 0 and 1: images of each breed at its own place.
_AT_HOME = (int(0.97 * _EACH), int(0.87 * _EACH))


def _spawrious(folder: Path) -> pd.DataFrame:
    home = folder / "spawrious224" if (folder / "spawrious224").is_dir() else folder
    rows = [
        {"image": path.relative_to(folder).as_posix(), "finding": breed, "group": place, "split": split, "part": part}
        for part, split, environment, place, breed, most in (*_one_to_one(), *_many_to_many())
        for path in sorted((home / environment / place / breed).glob("*.png"))[:most]
    ]
    if not rows:
        raise BenchError(f"{folder} holds no spawrious224/0/desert/bulldog, nor another place and breed")
    return photographs(rows)


def _one_to_one() -> Iterator[tuple[Any, ...]]:
    """Yield part, split, environment, place, breed, and how many images at most."""
    for part, (training, testing, common) in _ONE_TO_ONE.items():
        for environment, number in enumerate(_AT_HOME):
            for breed, own, other in zip(_BREEDS, training, testing, strict=True):
                yield part, "train", str(environment), own, breed, number
                yield part, "train", str(environment), common, breed, _EACH - number
                yield part, "test_ood", str(environment), other, breed, None


def _many_to_many() -> Iterator[tuple[Any, ...]]:
    """Yield the same: two breeds share two places in training, and two others' in the tests; folder 0 has them all."""
    for part, (training, testing) in _MANY_TO_MANY.items():
        for number, breed in enumerate(_BREEDS):
            for place in range(number // 2 * 2, number // 2 * 2 + 2):
                yield part, "train", "0", training[place], breed, _EACH
                yield part, "test_ood", "0", testing[place], breed, None


COLLECTIONS = {
    "spawrious": Collection(
        title="Spawrious",
        home="https://github.com/aengusl/spawrious",
        read=_spawrious,
        labels=None,
        parts=(*_ONE_TO_ONE, *_MANY_TO_MANY),
    )
}
