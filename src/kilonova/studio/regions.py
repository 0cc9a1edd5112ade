"""The part of a picture around a mask, so that what is small is still drawn at the model's full size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kilonova.core.errors import InvalidRequest
from kilonova.studio.sizes import Size, nearest_size

# Of the mask's longer side, on each of its sides: what the model sees of the surroundings.
_MARGIN = 0.5


@dataclass(frozen=True)
class Region:
    """A rectangle of pixels of a picture, and the `native` size (width, height) at which it is drawn."""

    left: int
    top: int
    width: int
    height: int
    native: Size

    def cut(self, picture: np.ndarray) -> np.ndarray:
        """This part of `picture` `[H, W, ...]`, a view."""
        return picture[self.top : self.top + self.height, self.left : self.left + self.width]


def whole(picture: np.ndarray, sizes: Sequence[Size]) -> Region:
    """All of `picture` `[H, W, ...]`, drawn at the nearest of the native `sizes`."""
    height, width = picture.shape[:2]
    return Region(0, 0, width, height, nearest_size(width, height, sizes))


def around(mask: np.ndarray, sizes: Sequence[Size], margin: float = _MARGIN) -> Region:
    """The surroundings of what is in `mask` bool `[H, W]`: `margin` of its longer side on each side of it.

    It grows to the aspect of the nearest native size, and to that size itself, as far as the picture reaches, as
    nothing is gained by drawing larger than the picture is. InvalidRequest for an empty mask.
    """
    height, width = mask.shape
    rows, columns = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
    if not len(rows):
        raise InvalidRequest("the mask selects no pixel of the picture", field="mask")
    top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    extra = 2 * margin * max(bottom - top, right - left)
    wanted = (min(right - left + extra, width), min(bottom - top + extra, height))
    native = nearest_size(*wanted, sizes)
    scale = max(1.0, wanted[0] / native[0], wanted[1] / native[1])
    sides = (min(round(native[0] * scale), width), min(round(native[1] * scale), height))
    return Region(
        _start(left, right, sides[0], width),
        _start(top, bottom, sides[1], height),
        *sides,
        nearest_size(*sides, sizes),
    )


def _start(first: int, end: int, length: int, limit: int) -> int:
    """Where `length` pixels around those from `first` to `end` begin, inside `limit`."""
    return min(max((first + end - length) // 2, 0), limit - length)
