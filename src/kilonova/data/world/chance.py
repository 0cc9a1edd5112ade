"""Draws that depend on nothing but the generator's stream of doubles, so that they are the same everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from kilonova.core.errors import DataError

T = TypeVar("T")
Seed = int | tuple[int, int]


def generator(seed: Seed) -> np.random.Generator:
    """PCG64 seeded by a number or by (seed, index). Raises `DataError` for a negative one."""
    if min((seed,) if isinstance(seed, int) else seed) < 0:
        raise DataError(f"seed is {seed}; its numbers must be at least 0")
    return np.random.Generator(np.random.PCG64(seed))


def pick(rng: np.random.Generator, items: Sequence[T]) -> T:
    """One item, each equally likely."""
    return items[int(rng.random() * len(items))]


def uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """A number from `low` to `high`, rounded to four places."""
    return round(low + (high - low) * float(rng.random()), 4)


def whole(rng: np.random.Generator, low: int, high: int) -> int:
    """A whole number from `low` to `high`, both included."""
    return low + int(rng.random() * (high - low + 1))


def shuffled(rng: np.random.Generator, items: Sequence[T]) -> list[T]:
    """The items in random order (Fisher and Yates)."""
    found = list(items)
    for last in range(len(found) - 1, 0, -1):
        other = int(rng.random() * (last + 1))
        found[last], found[other] = found[other], found[last]
    return found
