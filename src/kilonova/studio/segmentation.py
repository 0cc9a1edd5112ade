"""What finds things in pictures, for tasks whose masks are described."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class Segment:
    """One thing found: what it is called, how surely in [0, 1], and where, bool `[height, width]`."""

    name: str
    score: float
    mask: np.ndarray


class Segmenter(Protocol):
    """Finds things in a picture, uint8 `[height, width, 3]`, and answers at its size."""

    def foreground(self, picture: np.ndarray) -> np.ndarray:
        """How much each pixel belongs to what stands in front, float32 `[height, width]` in [0, 1]."""

    def refer(self, picture: np.ndarray, phrase: str) -> np.ndarray:
        """How surely each pixel belongs to what `phrase` names, float32 `[height, width]` in [0, 1]."""

    def instances(self, picture: np.ndarray, names: Sequence[str]) -> list[Segment]:
        """The things of the given names, one by one, surest first."""

    def semantic(self, picture: np.ndarray, names: Sequence[str]) -> np.ndarray:
        """For each pixel the index in `names` of what it shows, int64 `[height, width]`; -1 for none of them."""
