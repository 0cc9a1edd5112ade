"""Plants, animals and what is in the sky."""

from __future__ import annotations

import numpy as np

from kilonova.data.world.kind import Kind, kind
from kilonova.data.world.paths import (
    arc,
    curve,
    ellipse,
    line,
    mirrored,
    moved,
    polygon,
    rectangle,
    star,
    stroke,
    turned,
)

_Outlines = tuple[tuple[str, np.ndarray], ...]


def _eye(x: float, y: float, size: float) -> _Outlines:
    return (("white", ellipse(x, y, size)), ("ink", ellipse(x, y, size * 0.58)))


def _both(fill: str, points: np.ndarray) -> _Outlines:
    return ((fill, points), (fill, mirrored(points)))


_PETALS: _Outlines = tuple(("main", moved(turned(ellipse(0, -0.42, 0.25, 0.36), 60 * i), 0, -0.3)) for i in range(6))
_FLOWER_LEAF = curve("M0 .8 C.1 .5 .35 .42 .55 .48 C.5 .72 .25 .86 0 .82 Z")
_FLOWER: _Outlines = (
    ("leaf", line("M0 -.2 L0 1.1", 0.11)),
    *_both("leaf", _FLOWER_LEAF),
    *_PETALS,
    ("main", ellipse(0, -0.3, 0.3)),
    ("sunny", ellipse(0, -0.3, 0.26)),
)
_TREE: _Outlines = (
    ("wood", curve("M-.13 .2 L.13 .2 C.13 .6 .16 .85 .24 1 L-.24 1 C-.16 .85 -.13 .6 -.13 .2 Z")),
    ("main", ellipse(-0.4, 0.06, 0.4)),
    ("main", ellipse(0.4, 0.06, 0.4)),
    ("main", ellipse(0, -0.42, 0.55)),
    ("main", ellipse(0, 0.06, 0.5, 0.38)),
)
_LEAF: _Outlines = (
    ("dark", line("M0 .4 C.02 .7 .06 .85 .12 1", 0.1)),
    ("main", curve("M0 -1 C.5 -.7 .72 -.2 .62 .2 C.54 .52 .28 .68 0 .72 C-.28 .68 -.54 .52 -.62 .2 "
                   "C-.72 -.2 -.5 -.7 0 -1 Z")),
    ("dark", line("M0 -.62 L0 .7", 0.06)),
    *_both("dark", line("M0 .42 C.15 .35 .3 .22 .4 .05", 0.05)),
    *_both("dark", line("M0 .05 C.15 -.02 .3 -.15 .38 -.3", 0.05)),
)  # fmt: skip
_MUSHROOM: _Outlines = (
    ("cream", curve("M-.26 .0 L.26 .0 C.26 .4 .3 .7 .36 .92 C.2 1 -.2 1 -.36 .92 C-.3 .7 -.26 .4 -.26 0 Z")),
    ("main", curve("M-1 .1 C-1 -.6 -.55 -.95 0 -.95 C.55 -.95 1 -.6 1 .1 C.7 .26 -.7 .26 -1 .1 Z")),
)
_APPLE: _Outlines = (
    ("wood", line("M.02 -.45 C.02 -.7 .08 -.85 .18 -1", 0.1)),
    ("leaf", curve("M.12 -.72 C.22 -1 .5 -1.05 .72 -.98 C.66 -.74 .42 -.62 .12 -.72 Z")),
    ("main", curve("M0 -.5 C.2 -.66 .5 -.66 .7 -.5 C1 -.2 .86 .4 .6 .74 C.42 .98 .2 .98 0 .88 "
                   "C-.2 .98 -.42 .98 -.6 .74 C-.86 .4 -1 -.2 -.7 -.5 C-.5 -.66 -.2 -.66 0 -.5 Z")),
    ("light", ellipse(-0.56, -0.08, 0.1, 0.2)),
)  # fmt: skip
_SUN: _Outlines = (
    ("dark", star(12, 1, 0.72)),
    ("main", ellipse(0, 0, 0.68)),
    *_both("ink", ellipse(0.24, -0.1, 0.075, 0.1)),
    *_both("rose", ellipse(0.4, 0.14, 0.11, 0.075)),
    ("ink", arc(0, 0.04, 0.24, 20, 160, 0.075)),
)

_FISH: _Outlines = (
    ("dark", curve("M.42 0 C.6 -.3 .8 -.52 1 -.55 C.92 -.2 .92 .2 1 .55 C.8 .52 .6 .3 .42 0 Z")),
    ("dark", curve("M-.35 -.42 C-.1 -.82 .2 -.75 .34 -.62 C.28 -.5 .25 -.4 .2 -.3 Z")),
    ("main", curve("M-1 .04 C-.75 -.4 -.4 -.56 -.1 -.54 C.25 -.5 .48 -.25 .62 0 C.48 .25 .25 .5 -.1 .54 "
                   "C-.4 .56 -.75 .45 -1 .04 Z")),
    ("dark", curve("M-.12 .06 C.05 -.08 .24 -.06 .34 .02 C.26 .2 .06 .26 -.12 .06 Z")),
    *_eye(-0.58, -0.12, 0.13),
)  # fmt: skip
_BIRD: _Outlines = (
    ("sunny", line("M-.1 .6 L-.1 .98", 0.08)),
    ("sunny", line("M.18 .6 L.18 .98", 0.08)),
    ("dark", curve("M.4 -.05 L1 -.42 L.98 -.02 L.5 .4 Z")),
    ("main", curve("M-.75 -.35 C-.72 -.75 -.2 -.82 -.08 -.4 C.1 -.3 .5 -.28 .68 -.02 C.6 .5 .2 .78 -.15 .74 "
                   "C-.55 .7 -.8 .3 -.75 -.35 Z")),
    ("dark", curve("M-.14 -.06 C.12 -.18 .4 -.1 .56 .1 C.4 .42 .0 .46 -.14 -.06 Z")),
    ("sunny", polygon((-0.7, -0.42), (-1.02, -0.22), (-0.72, -0.14))),
    *_eye(-0.46, -0.38, 0.11),
)  # fmt: skip
_CAT: _Outlines = (
    *_both("main", curve("M-.9 .1 L-.86 -.95 C-.8 -1 -.72 -.98 -.66 -.92 L-.15 -.45 Z")),
    *_both("rose", polygon((-0.74, -0.3), (-0.74, -0.74), (-0.4, -0.45))),
    ("main", ellipse(0, 0.12, 0.92, 0.74)),
    *_both("white", ellipse(0.36, 0.02, 0.16, 0.19)),
    *_both("ink", ellipse(0.36, 0.03, 0.1, 0.16)),
    ("rose", polygon((-0.12, 0.26), (0.12, 0.26), (0, 0.4))),
    *_both("ink", arc(0.12, 0.4, 0.12, 10, 180, 0.05)),
    *_both("ink", line("M.5 .34 L.98 .24", 0.04)),
    *_both("ink", line("M.5 .46 L.96 .5", 0.04)),
)
_BUTTERFLY: _Outlines = (
    *_both("main", curve("M.04 -.05 C.2 -.7 .6 -.98 .9 -.85 C1.1 -.7 .95 -.1 .5 .1 C.3 .16 .1 .1 .04 .05 Z")),
    *_both("dark", curve("M.04 .06 C.3 .1 .7 .15 .78 .45 C.8 .8 .5 .92 .3 .75 C.16 .6 .08 .3 .04 .15 Z")),
    *_both("light", ellipse(0.63, -0.47, 0.15, 0.19)),
    *_both("light", ellipse(0.45, 0.5, 0.12)),
    *_both("ink", line("M.03 -.4 C.08 -.65 .15 -.8 .3 -.9", 0.05)),
    ("ink", ellipse(0, 0.05, 0.09, 0.5)),
)
_SPIRAL = np.stack([
    np.linspace(0.1, 0.46, 40) * np.cos(np.linspace(0, 4 * np.pi, 40)) + 0.18,
    np.linspace(0.1, 0.46, 40) * np.sin(np.linspace(0, 4 * np.pi, 40)) - 0.12], 1)  # fmt: skip
_SNAIL: _Outlines = (
    ("cream", line("M-.76 -.2 L-.9 -.62", 0.08)),
    ("cream", line("M-.62 -.2 L-.56 -.64", 0.08)),
    ("cream", curve("M-.98 -.1 C-.98 -.4 -.5 -.4 -.46 -.05 C-.42 .3 -.2 .36 .2 .36 C.6 .36 .85 .5 1 .72 L-.5 .72 "
                    "C-.85 .72 -.98 .3 -.98 -.1 Z")),
    ("ink", ellipse(-0.9, -0.64, 0.07)),
    ("ink", ellipse(-0.56, -0.66, 0.07)),
    ("ink", ellipse(-0.76, -0.02, 0.055)),
    ("main", ellipse(0.18, -0.12, 0.64)),
    ("dark", stroke(_SPIRAL, 0.1)),
)  # fmt: skip
_TURTLE: _Outlines = (
    ("leaf", ellipse(-0.78, 0.08, 0.24, 0.21)),
    ("leaf", polygon((0.75, 0.2), (1.0, 0.36), (0.7, 0.42))),
    ("leaf", rectangle(-0.52, 0.2, -0.2, 0.68, 0.12)),
    ("leaf", rectangle(0.28, 0.2, 0.6, 0.68, 0.12)),
    ("main", curve("M-.75 .36 C-.75 -.35 -.4 -.62 .04 -.62 C.48 -.62 .83 -.35 .83 .36 Z")),
    ("dark", rectangle(-0.8, 0.3, 0.88, 0.44, 0.07)),
    ("ink", ellipse(-0.84, 0.02, 0.05)),
)  # fmt: skip

NATURE: tuple[Kind, ...] = (
    kind("flower", "nature", *_FLOWER),
    kind("tree", "nature", *_TREE, stands=True, max_tilt=3),
    kind("leaf", "nature", *_LEAF, plural="leaves", max_tilt=25),
    kind("mushroom", "nature", *_MUSHROOM, stands=True, max_tilt=6),
    kind("apple", "nature", *_APPLE, stands=True),
    kind("sun", "nature", *_SUN),
    kind("fish", "animal", *_FISH, plural="fish", max_tilt=10),
    kind("bird", "animal", *_BIRD, stands=True, max_tilt=5),
    kind("cat", "animal", *_CAT, max_tilt=6),
    kind("butterfly", "animal", *_BUTTERFLY, plural="butterflies", max_tilt=20),
    kind("snail", "animal", *_SNAIL, stands=True, max_tilt=3),
    kind("turtle", "animal", *_TURTLE, stands=True, max_tilt=3),
)
