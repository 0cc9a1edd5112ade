"""From the sizes a model draws at to any other, and back."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

Size = tuple[int, int]
Box = tuple[float, float, float, float]

_MAX_STRETCH = 1.12


def nearest_size(width: float, height: float, sizes: Sequence[Size]) -> Size:
    """The one of `sizes` (width, height) whose aspect is the least times more or less than that of the given sides."""
    return min(sizes, key=lambda size: abs(math.log(size[0] / size[1] * height / width)))


def between(sizes: Sequence[Size], multiple: int) -> tuple[Size, ...]:
    """`sizes`, then those between them: none wider, higher, smaller or larger, with sides that are multiples.

    A network with positions of rows and columns has met all of theirs.
    """
    areas = [width * height for width, height in sizes]
    widths, heights = (range(multiple, max(size[axis] for size in sizes) + 1, multiple) for axis in (0, 1))
    found = [(width, height) for width in widths for height in heights if min(areas) <= width * height <= max(areas)]
    return tuple(dict.fromkeys((*sizes, *found)))


def shown_box(native: Size, shown: Size) -> Box:
    """The part of a picture of `native` size that is shown at the size `shown`: left, top, right, bottom in pixels.

    All of it if that stretches it by at most 12 percent, else its middle, so stretched.
    """
    stretch = shown[0] / shown[1] * native[1] / native[0]
    width = native[0] * min(1.0, stretch * _MAX_STRETCH)
    height = native[1] * min(1.0, _MAX_STRETCH / stretch)
    left, top = (native[0] - width) / 2, (native[1] - height) / 2
    return left, top, left + width, top + height


def resize(picture: np.ndarray, size: Size, box: Box | None = None) -> np.ndarray:
    """`picture` uint8 `[H, W, C]`, or its part `box`, at `size` (width, height), by Lanczos."""
    if size == (picture.shape[1], picture.shape[0]) and box in (None, (0.0, 0.0, *map(float, size))):
        return picture
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS, box))


def resize_mask(mask: np.ndarray, size: Size) -> np.ndarray:
    """`mask` bool `[H, W]` at `size` (width, height); a pixel of which any part is masked is masked."""
    image = Image.fromarray(mask.astype(np.uint8) * 255)
    return np.asarray(image.resize(size, Image.Resampling.BOX)) > 0


def behind(picture: np.ndarray, native: Size, shown: Size) -> np.ndarray:
    """A picture of `native` size whose `shown_box` shows the middle of `picture`; its border goes on around that."""
    left, top, right, bottom = (round(side) for side in shown_box(native, shown))
    height, width = picture.shape[:2]
    scale = min(width / shown[0], height / shown[1])
    x, y = (width - shown[0] * scale) / 2, (height - shown[1] * scale) / 2
    middle = resize(picture, (right - left, bottom - top), (x, y, x + shown[0] * scale, y + shown[1] * scale))
    return np.pad(middle, ((top, native[1] - bottom), (left, native[0] - right), (0, 0)), mode="edge")
