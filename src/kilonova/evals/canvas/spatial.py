"""How seen things stand to each other and where they are, by the rules of drawn scenes with room for a model's."""

from __future__ import annotations

import numpy as np

from kilonova.data.world.geometry import COLUMNS, ROWS
from kilonova.data.world.kinds import KINDS
from kilonova.data.world.wording import place_name
from kilonova.evals.canvas.recogniser import SeenThing

# Between the last place that is clearly in one third and the first that is in the next.
_THIRDS = (0.395, 0.605)
_GAP = 0.08
_INSIDE = 0.85


def relation_margins(first: SeenThing, second: SeenThing) -> dict[str, float]:
    """For every relation how clearly `first` stands in it to `second`: above 0 it does, in fractions of the frame."""
    across = first.centre[0] - second.centre[0]
    down = first.centre[1] - second.centre[1]
    shared = _shared(first, second)
    inside = (shared - _INSIDE) if KINDS[second.kind].holds else -1.0
    apart = 0.0 if shared > 0 else -1.0
    in_front = _lies_in_front(first, second) if shared > 0 else 0.0
    return {
        "left of": -across - abs(down),
        "right of": across - abs(down),
        "above": -down - abs(across),
        "below": down - abs(across),
        "inside": inside,
        "outside": -inside,
        "on top of": _GAP - abs(first.box[3] - second.box[1]) - max(0.0, abs(across) - _half_width(second)),
        "in front of": apart + in_front,
        "behind": apart - in_front,
    }


def place_of(thing: SeenThing) -> str:
    """The name of the part of the frame where a thing's middle is, such as "top left"."""
    x, y = thing.centre
    return place_name((ROWS[int(np.searchsorted(_THIRDS, y))], COLUMNS[int(np.searchsorted(_THIRDS, x))]))


def _half_width(thing: SeenThing) -> float:
    return (thing.box[2] - thing.box[0]) / 2


def _shared(first: SeenThing, second: SeenThing) -> float:
    """The share of the first thing's box that lies in the second's."""
    a, b = np.array(first.box), np.array(second.box)
    sides = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0)
    return float(sides.prod() / max((a[2:] - a[:2]).prod(), 1e-9))


def _lies_in_front(first: SeenThing, second: SeenThing) -> float:
    """From -1 to 1: how much more of the first thing lies in the second's convex hull, out of which it is cut, than the
    other way around. On drawn scenes it tells nine in ten pairs right."""
    from skimage.morphology import convex_hull_image

    own = int((first.mask & convex_hull_image(second.mask)).sum())
    other = int((second.mask & convex_hull_image(first.mask)).sum())
    return (own - other) / max(own + other, 1)
