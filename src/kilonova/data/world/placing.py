"""Puts families of things (a thing, and what stands on it, lies in it or before it) into the frame, none on another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from kilonova.data.world import geometry
from kilonova.data.world.chance import shuffled, uniform
from kilonova.data.world.kinds import KINDS
from kilonova.data.world.looks import Look
from kilonova.data.world.scene import SIZES, Pose, Scene, SceneObject, size_of

Family = tuple[SceneObject, ...]
Region = tuple[float, float, float, float]
FRAME: Region = (0.0, 0.0, 1.0, 1.0)
_GAP = 0.025
_TRIES = 30
_SHRINKS = 4


def thing(rng: np.random.Generator, look: Look, size: str, *, growth: float = 1.0, upright: bool = False) -> Family:
    """A family of one at the origin, about as large as its size class says, times `growth`."""
    kind, colour, texture = look
    tilt = 0.0 if upright or rng.random() < 0.5 else KINDS[kind].max_tilt
    scale = round(SIZES[size] * growth * uniform(rng, 0.93, 1.07), 4)
    return (SceneObject(kind, colour, texture, size, Pose(0, 0, scale, uniform(rng, -tilt, tilt))),)


def put_on(rng: np.random.Generator, child: Family, parent: Family) -> Family:
    """`child` standing on top of `parent`; both upright."""
    (above,), (below,) = child, parent
    height = KINDS[below.kind].foot * below.pose.scale + KINDS[above.kind].foot * above.pose.scale
    room = max(0.0, 0.6 * KINDS[below.kind].top * below.pose.scale - 0.3 * above.pose.scale)
    return _joined(below, above, uniform(rng, -room, room), round(-height, 4))


def put_in(rng: np.random.Generator, child: Family, parent: Family) -> Family:
    """`child`, shrunk as needed, inside `parent`."""
    (inner,), (outer,) = child, parent
    scale = min(inner.pose.scale, round(0.42 * outer.pose.scale, 4))
    inner = replace(inner, pose=replace(inner.pose, scale=scale))
    room = 0.06 * outer.pose.scale
    return _joined(outer, inner, uniform(rng, -room, room), uniform(rng, -room, room))


def put_before(rng: np.random.Generator, child: Family, parent: Family) -> Family:
    """`child` in front of `parent`, covering some of it, never more than 40 % and never the middle."""
    (front,), (back,) = child, parent
    reach = front.pose.scale + back.pose.scale
    families = []
    for _ in range(_TRIES):
        angle = 2 * np.pi * rng.random()
        distance = reach * uniform(rng, 0.45, 0.9)
        x, y = round(float(np.cos(angle) * distance), 4), round(float(np.sin(angle) * distance), 4)
        family = _joined(back, front, x, y)
        centred = Scene((replace(family[0], pose=replace(back.pose, x=0.5, y=0.5)), family[1]))
        lies_on, covers = geometry.overlap(centred, 1, 0)
        families.append((abs(lies_on - 0.25) if covers <= 0.4 else 1 + covers, family))
        if 0.12 <= lies_on <= 0.6 and covers <= 0.4:
            return family
    return min(families, key=lambda pair: pair[0])[1]


def _joined(parent: SceneObject, child: SceneObject, x: float, y: float) -> Family:
    return parent, replace(child, pose=replace(child.pose, x=x, y=y), depth=parent.depth + 1, parent=0)


def bounds(family: Family) -> np.ndarray:
    """Bounds (left, top, right, bottom) of a family about its first thing's centre, float64 `[4]`."""
    boxes = geometry.boxes(Scene(family))
    return np.concatenate([boxes[:, :2].min(0), boxes[:, 2:].max(0)])


def shrunk(family: Family, share: float) -> Family:
    """A family with all its lengths times `share`."""

    def length(value: float) -> float:
        return round(value * share, 4)

    return tuple(
        replace(one, pose=replace(one.pose, x=length(one.pose.x), y=length(one.pose.y), scale=length(one.pose.scale)))
        for one in family
    )  # fmt: skip


def place_at(families: Sequence[Family], spots: Sequence[tuple[float, float]]) -> tuple[SceneObject, ...]:
    """The things of all families, each family's first thing at its spot; nearer ones come later in depth."""
    placed: list[SceneObject] = []
    for family, (x, y) in zip(families, spots, strict=True):
        base = len(placed)
        for one in family:
            pose = one.pose if one.parent is not None else replace(one.pose, x=round(float(x), 4), y=round(float(y), 4))
            parent = None if one.parent is None else one.parent + base
            placed.append(replace(one, pose=pose, parent=parent, depth=base + one.depth, size=size_of(pose.scale)))
    return tuple(placed)


def scatter(rng: np.random.Generator, families: Sequence[Family], region: Region = FRAME) -> tuple[SceneObject, ...]:
    """The families at random spots of the region, apart from each other; shrunk a little where it is crowded."""
    for _ in range(_SHRINKS):
        spots = _random_spots(rng, [bounds(family) for family in families], region)
        if spots is not None:
            return place_at(families, spots)
        families = [shrunk(family, 0.92) for family in families]
    return _in_cells(rng, families, region)


def beside(rng: np.random.Generator, first: Family, second: Family, relation: str) -> tuple[SceneObject, ...]:
    """Two families of which the first is left of, right of, above or below the second."""
    axis = 0 if relation in ("left of", "right of") else 1
    families = [first, second]
    room = [bounds(family)[axis + 2] - bounds(family)[axis] for family in families]
    if sum(room) > 0.9:
        families = [shrunk(family, 0.9 / sum(room)) for family in families]
    low, high = [bounds(family)[axis] for family in families], [bounds(family)[axis + 2] for family in families]
    before, after = (0, 1) if relation in ("left of", "above") else (1, 0)
    spare = 1 - (high[0] - low[0]) - (high[1] - low[1]) - _GAP
    margins = [uniform(rng, 0.15, 0.45) * spare for _ in range(2)]
    spots = np.zeros((2, 2))
    spots[before, axis] = margins[0] - low[before]
    spots[after, axis] = 1 - margins[1] - high[after]
    reach = abs(spots[0, axis] - spots[1, axis]) / 1.5
    middle = uniform(rng, 0.46, 0.54)
    for index, family in enumerate(families):
        aside = middle + uniform(rng, -0.5, 0.5) * min(reach, 0.2)
        near, far = -bounds(family)[1 - axis], 1 - bounds(family)[3 - axis]
        spots[index, 1 - axis] = min(max(aside, near), far)
    return place_at(families, [(x, y) for x, y in spots])


def _random_spots(
    rng: np.random.Generator, extents: list[np.ndarray], region: Region
) -> list[tuple[float, float]] | None:
    taken: list[np.ndarray] = []
    spots: list[tuple[float, float]] = []
    for extent in extents:
        low_x, high_x = region[0] - extent[0] + _GAP / 2, region[2] - extent[2] - _GAP / 2
        low_y, high_y = region[1] - extent[1] + _GAP / 2, region[3] - extent[3] - _GAP / 2
        if low_x > high_x or low_y > high_y:
            return None
        for _ in range(_TRIES):
            spot = uniform(rng, low_x, high_x), uniform(rng, low_y, high_y)
            box = extent + np.array([*spot, *spot])
            if all((box[:2] > other[2:] + _GAP).any() or (other[:2] > box[2:] + _GAP).any() for other in taken):
                break
        else:
            return None
        taken.append(box)
        spots.append(spot)
    return spots


def _in_cells(rng: np.random.Generator, families: Sequence[Family], region: Region) -> tuple[SceneObject, ...]:
    """One family to a cell of a square grid, shrunk to fit."""
    side = int(np.ceil(np.sqrt(len(families))))
    cells = shuffled(rng, [(row, column) for row in range(side) for column in range(side)])[: len(families)]
    width, height = (region[2] - region[0]) / side, (region[3] - region[1]) / side
    fitted, spots = [], []
    for family, (row, column) in zip(families, cells, strict=True):
        extent = bounds(family)
        share = min(1.0, (width - _GAP) / (extent[2] - extent[0]), (height - _GAP) / (extent[3] - extent[1]))
        fitted.append(shrunk(family, share))
        middle = bounds(fitted[-1]).reshape(2, 2).mean(0)
        spots.append((region[0] + (column + 0.5) * width - middle[0], region[1] + (row + 0.5) * height - middle[1]))
    return place_at(fitted, spots)
