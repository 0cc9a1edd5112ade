"""The plain shapes."""

from __future__ import annotations

import numpy as np

from kilonova.data.world.kind import Kind, kind
from kilonova.data.world.paths import curve, ellipse, polygon, rectangle, regular, star

_CRESCENT = np.concatenate([ellipse(0, 0, 1, start=50.1, stop=309.9), ellipse(0.5, 0, 0.78, start=280.5, stop=79.5)])
_CROSS = polygon(
    (-0.33, -1), (0.33, -1), (0.33, -0.33), (1, -0.33), (1, 0.33), (0.33, 0.33),
    (0.33, 1), (-0.33, 1), (-0.33, 0.33), (-1, 0.33), (-1, -0.33), (-0.33, -0.33),
)  # fmt: skip
_ARROW = polygon((-1, -0.27), (0.1, -0.27), (0.1, -0.75), (1, 0), (0.1, 0.75), (0.1, 0.27), (-1, 0.27))
_HEART = curve(
    "M0 .95 C-.35 .62 -1 .22 -1 -.36 C-1 -.74 -.74 -.95 -.48 -.95 C-.24 -.95 -.08 -.82 0 -.62 "
    "C.08 -.82 .24 -.95 .48 -.95 C.74 -.95 1 -.74 1 -.36 C1 .22 .35 .62 0 .95 Z"
)
_DROP = curve("M0 -1 C.14 -.55 .68 -.1 .68 .35 C.68 .76 .38 1 0 1 C-.38 1 -.68 .76 -.68 .35 C-.68 -.1 -.14 -.55 0 -1 Z")
_CLOUD = curve(
    "M-.62 .5 C-.88 .5 -1 .33 -1 .14 C-1 -.08 -.84 -.22 -.64 -.22 C-.6 -.5 -.38 -.66 -.14 -.66 C.08 -.66 .26 -.55 "
    ".34 -.36 C.4 -.4 .48 -.42 .56 -.4 C.74 -.36 .8 -.22 .78 -.08 C.92 -.04 1 .08 1 .2 C1 .38 .86 .5 .68 .5 Z"
)
_BOLT = polygon((0.25, -1), (-0.6, 0.16), (-0.08, 0.16), (-0.3, 1), (0.62, -0.28), (0.08, -0.28), (0.42, -1))

SHAPES: tuple[Kind, ...] = (
    kind("circle", "shape", ("main", ellipse(0, 0, 1)), max_tilt=0, holds=True),
    kind("square", "shape", ("main", rectangle(-1, -1, 1, 1)), max_tilt=12, top=0.9, stands=True, holds=True),
    kind("triangle", "shape", ("main", polygon((0, -0.9), (1, 0.85), (-1, 0.85))), max_tilt=15, stands=True),
    kind("star", "shape", ("main", star(5))),
    kind("heart", "shape", ("main", _HEART), max_tilt=15),
    kind("ring", "shape", ("main", ellipse(0, 0, 1)), ("hole", ellipse(0, 0, 0.62)), max_tilt=0, holds=True),
    kind("cross", "shape", ("main", _CROSS), plural="crosses", max_tilt=12),
    kind("crescent", "shape", ("main", _CRESCENT), max_tilt=20),
    kind("hexagon", "shape", ("main", regular(6)), max_tilt=15, holds=True),
    kind("diamond", "shape", ("main", polygon((0, -1), (0.74, 0), (0, 1), (-0.74, 0)))),
    kind("arrow", "shape", ("main", _ARROW), max_tilt=20),
    kind("drop", "shape", ("main", _DROP)),
    kind("cloud", "shape", ("main", _CLOUD), max_tilt=4),
    kind("lightning bolt", "shape", ("main", _BOLT)),
)
