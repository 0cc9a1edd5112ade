"""Random parts of a picture that are to be made anew."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

_MARGIN = 0.04
_MAX_STROKES = 4


def random_mask(width: int, height: int, generator: np.random.Generator) -> np.ndarray:
    """A rectangle, an ellipse or a few strokes of a brush, of some or most of the picture: bool `[height, width]`."""
    image = Image.new("1", (width, height))
    pencil = ImageDraw.Draw(image)
    kind = generator.integers(3)
    if kind < 2:
        box = _box(width, height, generator)
        (pencil.rectangle if kind else pencil.ellipse)(box, fill=1)
    else:
        for _ in range(generator.integers(1, _MAX_STROKES + 1)):
            _stroke(pencil, width, height, generator)
    return np.array(image)


def frame_mask(width: int, height: int, generator: np.random.Generator) -> np.ndarray:
    """All but a rectangle of three to eight tenths of each side, as outpainting has it: bool `[height, width]`."""
    mask = np.ones((height, width), bool)
    sides = [max(1, round(side * generator.uniform(0.3, 0.8))) for side in (width, height)]
    left = int(generator.integers(width - sides[0] + 1))
    top = int(generator.integers(height - sides[1] + 1))
    mask[top : top + sides[1], left : left + sides[0]] = False
    return mask


def grown(mask: np.ndarray, margin: float) -> np.ndarray:
    """`mask` with all that is within `margin`, a share of the shorter side, of it; in the same form."""
    from scipy import ndimage

    radius = max(1, round(margin * min(mask.shape)))
    return ndimage.distance_transform_edt(~mask) <= radius if mask.any() else mask


def bounding_box(mask: np.ndarray) -> np.ndarray:
    """The smallest upright rectangle around what is in `mask`, in the same form."""
    box = np.zeros_like(mask)
    rows, columns = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
    if len(rows):
        box[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
    return box


def loose_mask(mask: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """What a user might draw around a thing: its outline grown a little or more, or the box around that."""
    found = grown(mask, _MARGIN * generator.uniform(0.5, 2.5))
    return bounding_box(found) if generator.random() < 0.3 else found


def _box(width: int, height: int, generator: np.random.Generator) -> tuple[int, int, int, int]:
    sides = [max(2, round(side * generator.uniform(0.25, 0.9))) for side in (width, height)]
    left = round((width - sides[0]) * generator.random())
    top = round((height - sides[1]) * generator.random())
    return left, top, left + sides[0] - 1, top + sides[1] - 1


def _stroke(pencil: ImageDraw.ImageDraw, width: int, height: int, generator: np.random.Generator) -> None:
    points = generator.uniform(size=(int(generator.integers(2, 6)), 2)) * (width, height)
    radius = max(1.0, min(width, height) * generator.uniform(0.05, 0.13))
    pencil.line(points.ravel().tolist(), fill=1, width=round(2 * radius))
    for x, y in points.tolist():
        pencil.ellipse((x - radius, y - radius, x + radius, y + radius), fill=1)
