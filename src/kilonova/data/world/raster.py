"""From outlines to pixels: one thing becomes a small tile of fill roles, from which masks and picture both come."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from kilonova.data.world.colours import ACCENTS
from kilonova.data.world.kind import CONTOUR_WIDTH
from kilonova.data.world.kinds import KINDS
from kilonova.data.world.paths import turned, widened
from kilonova.data.world.scene import Scene, SceneObject

ROLES: tuple[str, ...] = ("hole", "main", "second", "light", "dark", "contour", *ACCENTS)
ROLE_INDEX: dict[str, int] = {role: index for index, role in enumerate(ROLES)}
_TEXTURE_PERIOD = 0.52


@dataclass(frozen=True, eq=False)
class Tile:
    """Fill roles uint8 `[h * factor, w * factor]` of one thing; `x`, `y` is its corner in pixels of the picture."""

    x: int
    y: int
    factor: int
    roles: np.ndarray


def centres(scene: Scene, width: int, height: int) -> np.ndarray:
    """Centres of all things in pixels, float64 `[N, 2]`."""
    short = min(width, height)
    found = np.zeros((len(scene.objects), 2))
    for index, thing in enumerate(scene.objects):
        if thing.parent is None:
            found[index] = thing.pose.x * width, thing.pose.y * height
        else:
            found[index] = found[thing.parent] + np.array([thing.pose.x, thing.pose.y]) * short
    return found


def box(thing: SceneObject, centre: np.ndarray, short: float) -> np.ndarray:
    """The whole thing's bounds (left, top, right, bottom) in pixels, whatever covers it; float64 `[4]`."""
    kind = KINDS[thing.kind]
    extent = kind.outlined_extent if thing.texture == "outlined" else kind.extent
    points = turned(extent, thing.pose.rotation) * (thing.pose.scale * short) + centre
    return np.concatenate([points.min(0), points.max(0)])


def draw(thing: SceneObject, centre: np.ndarray, short: float, factor: int) -> Tile:
    """One thing drawn whole, `factor` subpixels to a pixel; `short` is the picture's shorter side in pixels."""
    kind, pose = KINDS[thing.kind], thing.pose
    bounds = box(thing, centre, short)
    x, y = (np.floor(bounds[:2]) - 1).astype(int).tolist()
    width, height = (np.ceil(bounds[2:]).astype(int) + 1 - (x, y)).tolist()
    image = Image.new("L", (width * factor, height * factor))
    pencil = ImageDraw.Draw(image)
    unit = pose.scale * short * factor
    origin = (centre - (x, y)) * factor
    outlines = [(path.fill, turned(path.points, pose.rotation) * unit + origin) for path in kind.paths]
    if thing.texture == "outlined":
        _draw_outlined(pencil, outlines, unit * CONTOUR_WIDTH)
    else:
        for fill, points in outlines:
            pencil.polygon(points.ravel().tolist(), fill=ROLE_INDEX[fill])
    roles = np.array(image)
    if thing.texture in ("striped", "dotted", "checkered"):
        local = _local_coordinates(roles.shape, origin, unit, pose.rotation)
        roles[(roles == ROLE_INDEX["main"]) & pattern(thing.texture, *local)] = ROLE_INDEX["second"]
    elif thing.texture == "shiny":
        u, v = _local_coordinates(roles.shape, origin, unit, pose.rotation)
        gloss = ((u + 0.3) / 0.34) ** 2 + ((v + 0.46) / 0.16) ** 2 < 1
        roles[(roles == ROLE_INDEX["main"]) & gloss] = ROLE_INDEX["second"]
    return Tile(x, y, factor, roles)


def silhouette(thing: SceneObject, centre: np.ndarray, size: int, *, filled: bool = False) -> np.ndarray:
    """Where one whole thing is in a square picture, bool `[size, size]`; `filled` closes its holes."""
    image = Image.new("L", (size, size))
    pencil = ImageDraw.Draw(image)
    for path in KINDS[thing.kind].paths:
        points = turned(path.points, thing.pose.rotation) * (thing.pose.scale * size) + centre
        if path.fill != "hole" or not filled:
            pencil.polygon(points.ravel().tolist(), fill=int(path.fill != "hole"))
    return np.array(image, bool)


def _draw_outlined(pencil: ImageDraw.ImageDraw, outlines: list[tuple[str, np.ndarray]], margin: float) -> None:
    """The outlines over a dark copy that is wider by `margin`; holes get the same rim."""
    for fill, points in outlines:
        if fill != "hole":
            pencil.polygon(widened(points, margin).ravel().tolist(), fill=ROLE_INDEX["contour"])
    for fill, points in outlines:
        if fill == "hole":
            pencil.polygon(points.ravel().tolist(), fill=ROLE_INDEX["contour"])
            points = widened(points, -2 * margin)
        pencil.polygon(points.ravel().tolist(), fill=ROLE_INDEX[fill])


def _local_coordinates(
    shape: tuple[int, ...], origin: np.ndarray, unit: float, rotation: float
) -> tuple[np.ndarray, np.ndarray]:
    """Unit coordinates of the thing at every subpixel."""
    angle = np.radians(rotation)
    cos, sin = np.cos(angle) / unit, np.sin(angle) / unit
    x = np.arange(shape[1], dtype=np.float32) + np.float32(0.5 - origin[0])
    y = (np.arange(shape[0], dtype=np.float32) + np.float32(0.5 - origin[1]))[:, None]
    return x * np.float32(cos) + y * np.float32(sin), y * np.float32(cos) - x * np.float32(sin)


def pattern(texture: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Where a striped, checkered or dotted thing has its second colour, of its unit coordinates."""
    if texture == "striped":
        return ((u * 0.8 + v * 0.6) / _TEXTURE_PERIOD) % 1 < 0.45
    rows = v / _TEXTURE_PERIOD + 0.5
    if texture == "checkered":
        return (np.floor(rows * 2).astype(np.int32) + np.floor(u / _TEXTURE_PERIOD * 2).astype(np.int32)) % 2 == 1
    columns = u / _TEXTURE_PERIOD + 0.5 * (np.floor(rows) % 2)
    return (columns % 1 - 0.5) ** 2 + (rows % 1 - 0.5) ** 2 < 0.3**2
