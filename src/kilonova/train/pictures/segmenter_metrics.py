"""How well things are found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


def intersection_over_union(found: Tensor, true: Tensor) -> Tensor:
    """The common part of two masks, bool `[..., H, W]`, by their union, float64 `[...]`; 1 where both are empty."""
    union = (found | true).sum((-2, -1))
    common = (found & true).sum((-2, -1))
    return torch.where(union > 0, common / union.clamp(min=1).double(), 1.0)


@dataclass
class PanopticQuality:
    """Panoptic quality over all things of all pictures (arXiv 1801.00868, equation 1), things of every text alike.

    A found and a true mask of one text are the same thing if more than half of their union is common.
    """

    overlap: float = 0.0
    matched: int = 0
    unmatched: int = 0

    def add(self, found: Sequence[tuple[int, Tensor]], true: Sequence[tuple[frozenset[int], Tensor]]) -> None:
        """Take in a picture: what was found, with the number of its text, surest first, and what there is, with the
        numbers of all texts it fits."""
        left = list(range(len(true)))
        for text, mask in found:
            named = [number for number in left if text in true[number][0]]
            shares = {number: float(intersection_over_union(mask, true[number][1])) for number in named}
            best = max(shares, key=shares.__getitem__, default=None)
            if best is None or shares[best] <= 0.5:
                self.unmatched += 1
                continue
            left.remove(best)
            self.overlap += shares[best]
            self.matched += 1
        self.unmatched += len(left)

    @property
    def value(self) -> float:
        """In [0, 1]; 1 where there was nothing to find and nothing was found."""
        total = self.matched + self.unmatched / 2
        return self.overlap / total if total else 1.0
