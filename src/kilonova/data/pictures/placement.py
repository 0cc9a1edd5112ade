"""Pictures brought to the size of a training step."""

from __future__ import annotations

import numpy as np
from PIL import Image


def place(picture: Image.Image, width: int, height: int, generator: np.random.Generator | None = None) -> np.ndarray:
    """An RGBA picture, whole, on a transparent canvas: uint8 `[height, width, 4]`.

    It is as large as fits and in the middle or, with a `generator`, at a random place at 70 to 100 percent of that.
    """
    scale = min(width / picture.width, height / picture.height)
    if generator is not None:
        scale *= generator.uniform(0.7, 1.0)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    spare = (width - size[0], height - size[1])
    shares = (0.5, 0.5) if generator is None else generator.uniform(size=2)
    corner = (round(spare[0] * shares[0]), round(spare[1] * shares[1]))
    if size != picture.size:
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    canvas = Image.new("RGBA", (width, height), (0, 0, 0, 0))
    canvas.paste(picture, corner)
    return np.asarray(canvas)


def over_colour(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """A picture uint8 `[H, W, 4]` in front of an opaque `colour`, in the same form."""
    alpha = picture[..., 3:].astype(np.float32) / 255
    mixed = picture[..., :3] * alpha + np.asarray(colour, np.float32) * (1 - alpha)
    opaque = np.full_like(picture[..., 3:], 255)
    return np.concatenate([np.rint(mixed).astype(np.uint8), opaque], axis=-1)
