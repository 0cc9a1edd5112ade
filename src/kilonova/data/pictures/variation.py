"""Pictures that are like another."""

from __future__ import annotations

import numpy as np
from PIL import Image

# Of the shorter side, at an amount of 1.
_WARP = 0.1
_WARP_POINTS = 4
_TURN = 25.0
_SHRINK = 0.35
_TONE = 0.35


def warped(picture: np.ndarray, amount: float, generator: np.random.Generator) -> np.ndarray:
    """`picture` uint8 `[H, W, C]` bent smoothly, as if drawn again by another hand; in the same form.

    At an `amount` of 1 points of a grid of 4 x 4 move by about a tenth of the shorter side; 0 moves none.
    """
    if amount <= 0:
        return picture
    height, width = picture.shape[:2]
    coarse = generator.normal(size=(2, _WARP_POINTS, _WARP_POINTS)) * (amount * _WARP * min(height, width))
    shifts = [
        np.asarray(Image.fromarray(part.astype(np.float32)).resize((width, height), Image.Resampling.BICUBIC))
        for part in coarse
    ]
    rows, columns = np.mgrid[:height, :width]
    places = np.rint(np.stack((rows + shifts[0], columns + shifts[1]))).astype(np.int64)
    places[0] = places[0].clip(0, height - 1)
    places[1] = places[1].clip(0, width - 1)
    return picture[places[0], places[1]]


def varied(picture: np.ndarray, amount: float, generator: np.random.Generator) -> np.ndarray:
    """`picture` uint8 `[H, W, 4]` turned, moved, mirrored, bent and toned, the more the larger `amount` in [0, 1].

    0 leaves it as it is.
    """
    if amount <= 0:
        return picture
    height, width = picture.shape[:2]
    image = Image.fromarray(picture)
    if generator.random() < amount / 2:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    angle = np.radians(amount * _TURN * generator.uniform(-1, 1))
    scale = 1 + amount * _SHRINK * generator.uniform(-0.2, 1)
    shift = amount * 0.12 * generator.uniform(-1, 1, size=2) * (width, height)
    cos, sin = np.cos(angle) * scale, np.sin(angle) * scale
    x, y = width / 2, height / 2
    matrix = (cos, -sin, x - cos * x + sin * y + shift[0], sin, cos, y - sin * x - cos * y + shift[1])
    ground = tuple(picture[0, 0].tolist())
    image = image.transform(
        (width, height), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=ground
    )
    found = warped(np.asarray(image), amount / 2, generator)
    tones = 1 + amount * _TONE * generator.uniform(-1, 1, size=3)
    colours = np.clip(found[..., :3] * tones, 0, 255).astype(np.uint8)
    return np.concatenate((colours, found[..., 3:]), axis=-1)
