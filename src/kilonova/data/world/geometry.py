"""What is where: relations and places of things, read from their outlines in the square frame of side 1.

Only what holds at every aspect ratio is said. Two things without parents keep their order along each axis, and two
things of one family (a parent, its children and theirs) keep their offsets; a child and a stranger keep neither.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from kilonova.data.world import raster
from kilonova.data.world.kinds import KINDS
from kilonova.data.world.scene import Scene

OPPOSITE: dict[str, str] = {
    "left of": "right of", "right of": "left of", "above": "below", "below": "above",
    "in front of": "behind", "behind": "in front of",
}  # fmt: skip
RELATIONS: tuple[str, ...] = (*OPPOSITE, "inside", "on top of")
ROWS: tuple[str, ...] = ("top", "middle", "bottom")
COLUMNS: tuple[str, ...] = ("left", "center", "right")
_SIZE = 96
_MIN_OFFSET = 0.15
_DOMINANCE = 1.3
_OVERLAP = 0.08


@lru_cache(maxsize=256)
def boxes(scene: Scene) -> np.ndarray:
    """Bounds (left, top, right, bottom) of every whole thing, float64 `[N, 4]`."""
    centres = raster.centres(scene, 1, 1)
    found = [raster.box(thing, centre, 1) for thing, centre in zip(scene.objects, centres, strict=True)]
    return np.array(found).reshape(-1, 4)


@lru_cache(maxsize=256)
def relations(scene: Scene) -> dict[tuple[int, int], frozenset[str]]:
    """For every ordered pair of things (i, j), all `RELATIONS` in which i stands to j; pairs without are left out."""
    found = {}
    count = len(scene.objects)
    for i, j in ((i, j) for i in range(count) for j in range(count) if i != j):
        same_family = _root(scene, i) == _root(scene, j)
        both_roots = _root(scene, i) == i and _root(scene, j) == j
        if not same_family and not both_roots:
            continue
        names = _order(boxes(scene)[i], boxes(scene)[j])
        if same_family:
            names |= _contact(scene, i, j)
        if names:
            found[i, j] = frozenset(names)
    return found


def place(scene: Scene, index: int) -> tuple[str, str] | None:
    """The (row, column) of the frame in which a thing clearly is, of `ROWS` and `COLUMNS`; None between two of them,
    and for a thing with a parent."""
    thing = scene.objects[index]
    if thing.parent is not None:
        return None
    row, column = _third(thing.pose.y, ROWS), _third(thing.pose.x, COLUMNS)
    return (row, column) if row and column else None


def overlap(scene: Scene, front: int, back: int) -> tuple[float, float]:
    """The share of `front` that lies on `back`, and the share of `back` that is covered by it."""
    centres = raster.centres(scene, _SIZE, _SIZE)
    over = raster.silhouette(scene.objects[front], centres[front], _SIZE)
    under = raster.silhouette(scene.objects[back], centres[back], _SIZE)
    both = (over & under).sum()
    return float(both / max(over.sum(), 1)), float(both / max(under.sum(), 1))


def area(scene: Scene, index: int) -> float:
    """The share of the square frame that a whole thing fills."""
    centre = np.array([_SIZE / 2, _SIZE / 2])
    return float(raster.silhouette(scene.objects[index], centre, _SIZE).mean())


def _root(scene: Scene, index: int) -> int:
    parent = scene.objects[index].parent
    return index if parent is None else _root(scene, parent)


def _third(value: float, names: tuple[str, ...]) -> str | None:
    if value < 0.36:
        return names[0]
    if value > 0.64:
        return names[2]
    return names[1] if 0.43 <= value <= 0.57 else None


def _order(first: np.ndarray, second: np.ndarray) -> set[str]:
    """left of, right of, above, below: one box wholly to that side, and mostly in that direction."""
    across, down = (second[:2] + second[2:] - first[:2] - first[2:]) / 2
    names = set()
    if abs(across) >= max(_MIN_OFFSET, _DOMINANCE * abs(down)):
        if first[2] <= second[0]:
            names.add("left of")
        elif second[2] <= first[0]:
            names.add("right of")
    if abs(down) >= max(_MIN_OFFSET, _DOMINANCE * abs(across)):
        if first[3] <= second[1] + 0.02:
            names.add("above")
        elif second[3] <= first[1] + 0.02:
            names.add("below")
    return names


def _contact(scene: Scene, i: int, j: int) -> set[str]:
    first, second = scene.objects[i], scene.objects[j]
    box, other = boxes(scene)[i], boxes(scene)[j]
    top = KINDS[second.kind].top * second.pose.scale
    if (
        KINDS[first.kind].stands
        and abs(box[3] - other[1]) <= 0.03
        and abs(box[0] + box[2] - other[0] - other[2]) / 2 < top
        and abs(first.pose.rotation) + abs(second.pose.rotation) <= 3
    ):
        return {"on top of"}
    if (box[:2] > other[2:]).any() or (other[:2] > box[2:]).any():
        return set()
    if KINDS[second.kind].holds and first.depth > second.depth:
        centres = raster.centres(scene, _SIZE, _SIZE)
        inner = raster.silhouette(first, centres[i], _SIZE, filled=True)
        outer = raster.silhouette(second, centres[j], _SIZE, filled=True)
        if not (inner & ~outer).any() and inner.sum() < 0.6 * outer.sum():
            return {"inside"}
    front, back = (i, j) if first.depth > second.depth else (j, i)
    lies_on, _ = overlap(scene, front, back)
    if not _OVERLAP <= lies_on < 0.9:
        return set()
    return {"in front of" if front == i else "behind"}
