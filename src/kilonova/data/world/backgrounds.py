"""Paints what is behind the things, smooth and pale, and says which part of it is what."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from kilonova.data.world.colours import BACKGROUND_COLOURS, Rgb, mix
from kilonova.data.world.scene import Background

REGIONS: tuple[str, ...] = ("background", "sky", "grass", "sea", "sand", "snow", "wall", "floor", "hill")
_FLOOR: Rgb = (206, 170, 130)
# Sky at the top, sky at the horizon, far ground, near ground; and what the two grounds are.
_LANDSCAPES: dict[str, tuple[tuple[Rgb, Rgb, Rgb, Rgb], tuple[str, str]]] = {
    "meadow": (((146, 204, 246), (224, 242, 252), (170, 216, 140), (134, 196, 112)), ("hill", "grass")),
    "beach": (((132, 202, 244), (226, 244, 252), (92, 178, 216), (246, 224, 172)), ("sea", "sand")),
    "snow": (((170, 196, 226), (226, 234, 244), (212, 224, 240), (246, 249, 253)), ("hill", "snow")),
    "sunset": (((120, 92, 160), (255, 190, 132), (134, 90, 134), (96, 66, 112)), ("hill", "hill")),
    "night": (((18, 24, 60), (54, 66, 124), (30, 42, 82), (22, 32, 64)), ("hill", "hill")),
}
_STARS = 40


def backdrop_colours(background: Background) -> tuple[Rgb, ...]:
    """The colours that cover most of a background, for judging what stands out from it."""
    if background.colour is None:
        return _LANDSCAPES[background.kind][0]
    colour = BACKGROUND_COLOURS[background.colour]
    return (colour, _FLOOR) if background.kind == "room" else (colour,)


@lru_cache(maxsize=8)
def paint(background: Background, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """The picture of a background, float32 `[height, width, 3]` in 0 to 255, and its parts, indices into `REGIONS`,
    int16 `[height, width]`. Both are shared: copy before writing."""
    y = (np.arange(height, dtype=np.float32)[:, None] + 0.5) / height
    x = (np.arange(width, dtype=np.float32)[None] + 0.5) / width
    regions = np.zeros((height, width), np.int16)
    if background.colour is None:
        return _landscape(background, x, y, regions), regions
    colour = BACKGROUND_COLOURS[background.colour]
    if background.kind == "room":
        return _room(colour, background.horizon, y, regions), regions
    if background.kind == "gradient":
        rows = _blend(mix(colour, (255, 255, 255), 0.45), mix(colour, (64, 64, 120), 0.14), y)
        return _spread(rows, width), regions
    if background.kind == "checkered":
        side = min(width, height) / 8
        rows, columns = (np.arange(length) // side for length in (height, width))
        odd = ((rows[:, None] + columns[None]) % 2).astype(np.float32)
        return _blend(colour, mix(colour, (128, 128, 150), 0.13), odd), regions
    return np.full((height, width, 3), colour, np.float32), regions


def _blend(first: Rgb, second: Rgb, share: np.ndarray) -> np.ndarray:
    """From `first` to `second` by `share` `[H, W]` (or one of them 1), float32 `[H, W, 3]`."""
    start, end = np.array(first, np.float32), np.array(second, np.float32)
    return start + share[..., None].astype(np.float32) * (end - start)


def _cover(picture: np.ndarray, regions: np.ndarray, edge: np.ndarray, y: np.ndarray, colour: Rgb, name: str) -> None:
    """Fills what is below `edge` `[1, W]`, darkening gently downwards; the edge is smooth."""
    height = len(y)
    first = max(0, int(edge.min() * height) - 1)
    y, picture, regions = y[first:], picture[first:], regions[first:]
    share = np.clip((y - edge) * height + 0.5, 0, 1)
    ground = _blend(colour, mix(colour, (30, 40, 60), 0.1), np.clip((y - edge.mean()) * 2, 0, 1))
    picture += share[..., None] * (ground - picture)
    regions[np.broadcast_to(share >= 0.5, regions.shape)] = REGIONS.index(name)


def _spread(rows: np.ndarray, width: int) -> np.ndarray:
    """Rows `[H, 1, 3]` repeated over `width` columns."""
    return np.repeat(rows, width, axis=1)


def _landscape(background: Background, x: np.ndarray, y: np.ndarray, regions: np.ndarray) -> np.ndarray:
    (zenith, low_sky, far, near), (far_name, near_name) = _LANDSCAPES[background.kind]
    horizon = background.horizon
    picture = _spread(_blend(zenith, low_sky, np.clip(y / horizon, 0, 1)), x.size)
    regions[:] = REGIONS.index("sky")
    if background.kind == "night":
        _add_stars(picture, horizon)
    flat = background.kind == "beach"
    _cover(picture, regions, horizon + (0 if flat else 0.03) * np.sin(7 * x + 9 * horizon), y, far, far_name)
    _cover(picture, regions, horizon + 0.12 + 0.025 * np.sin(5 * x + 2 + 20 * horizon), y, near, near_name)
    return picture


def _add_stars(picture: np.ndarray, horizon: float) -> None:
    """Small dots over the sky, spread by the fractional parts of multiples of irrational numbers."""
    height, width = picture.shape[:2]
    radius = max(1, round(min(height, width) / 128))
    for index in range(_STARS):
        left = int(index * 0.754877666 % 1 * width)
        top = int(index * 0.569840291 % 1 * (horizon - 0.05) * height)
        share = 0.35 + 0.4 * (index * 0.618034 % 1)
        patch = picture[top : top + radius, left : left + radius]
        patch += share * (np.float32(255) - patch)


def _room(wall: Rgb, horizon: float, y: np.ndarray, regions: np.ndarray) -> np.ndarray:
    picture = _spread(_blend(mix(wall, (255, 255, 255), 0.2), wall, y), regions.shape[1])
    regions[:] = REGIONS.index("wall")
    edge = np.full((1, 1), horizon + 0.1, np.float32)
    _cover(picture, regions, edge - 0.03, y, mix(wall, (255, 255, 255), 0.6), "wall")
    _cover(picture, regions, edge, y, _FLOOR, "floor")
    return picture
