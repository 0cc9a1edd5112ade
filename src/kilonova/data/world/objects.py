"""Buildings, vehicles and things of the house."""

from __future__ import annotations

import numpy as np

from kilonova.data.world.kind import Kind, kind
from kilonova.data.world.paths import arc, curve, ellipse, line, mirrored, polygon, rectangle

_Outlines = tuple[tuple[str, np.ndarray], ...]


def _both(fill: str, points: np.ndarray) -> _Outlines:
    return ((fill, points), (fill, mirrored(points)))


def _wheel(x: float, y: float, size: float) -> _Outlines:
    return (("ink", ellipse(x, y, size)), ("metal", ellipse(x, y, size * 0.5)))


_HOUSE: _Outlines = (
    ("wood", rectangle(0.42, -0.86, 0.66, -0.3)),
    ("main", rectangle(-0.76, -0.16, 0.76, 0.95)),
    ("dark", polygon((-1, -0.1), (0, -1), (1, -0.1))),
    ("wood", curve("M-.2 .95 L-.2 .45 C-.2 .25 .2 .25 .2 .45 L.2 .95 Z")),
    *_both("glass", rectangle(0.34, 0.14, 0.62, 0.44)),
    ("sunny", ellipse(0.1, 0.66, 0.045)),
)
_CASTLE: _Outlines = (
    ("rose", polygon((0, -1), (0.36, -0.88), (0, -0.76))),
    ("wood", rectangle(-0.03, -1, 0.03, -0.5)),
    ("main", curve("M-.34 .9 L-.34 -.55 L-.2 -.55 L-.2 -.42 L-.07 -.42 L-.07 -.55 L.07 -.55 L.07 -.42 L.2 -.42 "
                   "L.2 -.55 L.34 -.55 L.34 .9 Z")),
    *_both("main", curve("M.3 .9 L.3 -.1 L.48 -.1 L.48 .03 L.64 .03 L.64 -.1 L.78 -.1 L.78 .03 L.94 .03 L.94 -.1 "
                         "L1 -.1 L1 .9 Z")),
    ("wood", curve("M-.2 .9 L-.2 .4 C-.2 .15 .2 .15 .2 .4 L.2 .9 Z")),
    *_both("ink", rectangle(0.58, 0.24, 0.72, 0.5, 0.06)),
    ("ink", rectangle(-0.07, -0.24, 0.07, 0.0, 0.06)),
)  # fmt: skip
_CAR: _Outlines = (
    ("main", curve("M-1 .3 C-1 .02 -.92 -.06 -.62 -.1 C-.45 -.4 -.32 -.56 -.1 -.56 L.28 -.56 C.5 -.56 .6 -.35 .74 -.1 "
                   "C.92 -.06 1 .02 1 .22 L1 .42 L-1 .42 Z")),
    ("glass", curve("M-.44 -.1 C-.34 -.3 -.25 -.42 -.1 -.42 L.02 -.42 L.02 -.1 Z")),
    ("glass", curve("M.12 -.42 L.28 -.42 C.42 -.42 .48 -.3 .56 -.1 L.12 -.1 Z")),
    ("sunny", ellipse(-0.92, 0.14, 0.075, 0.1)),
    *_wheel(-0.52, 0.42, 0.23),
    *_wheel(0.54, 0.42, 0.23),
)  # fmt: skip
_BUS: _Outlines = (
    ("main", rectangle(-1, -0.6, 1, 0.5, 0.16)),
    ("glass", rectangle(-0.88, -0.4, -0.44, 0.0, 0.06)),
    ("glass", rectangle(-0.32, -0.4, 0.06, 0.0, 0.06)),
    ("glass", rectangle(0.18, -0.4, 0.56, 0.0, 0.06)),
    ("glass", rectangle(0.68, -0.4, 0.88, 0.36, 0.06)),
    ("sunny", ellipse(-0.93, 0.26, 0.06, 0.09)),
    *_wheel(-0.54, 0.5, 0.22),
    *_wheel(0.46, 0.5, 0.22),
)
_BOAT: _Outlines = (
    ("wood", rectangle(-0.05, -1, 0.05, 0.4)),
    ("main", polygon((0.11, -0.92), (0.86, 0.2), (0.11, 0.2))),
    ("white", polygon((-0.11, -0.72), (-0.11, 0.2), (-0.7, 0.2))),
    ("main", curve("M-1 .34 L1 .34 C.92 .7 .74 .88 .5 .9 L-.5 .9 C-.74 .88 -.92 .7 -1 .34 Z")),
    ("dark", rectangle(-1, 0.32, 1, 0.44)),
)
_ROCKET: _Outlines = (
    ("sunny", curve("M-.18 .62 L.18 .62 C.2 .8 .1 .95 0 1.08 C-.1 .95 -.2 .8 -.18 .62 Z")),
    *_both("dark", curve("M.26 .1 C.5 .25 .58 .5 .56 .78 C.45 .62 .35 .58 .22 .56 Z")),
    ("main", curve("M0 -1 C.28 -.74 .4 -.35 .36 0 C.34 .3 .26 .5 .2 .66 L-.2 .66 C-.26 .5 -.34 .3 -.36 0 "
                   "C-.4 -.35 -.28 -.74 0 -1 Z")),
    ("dark", curve("M0 -1 C.14 -.87 .24 -.71 .3 -.54 L-.3 -.54 C-.24 -.71 -.14 -.87 0 -1 Z")),
    ("white", ellipse(0, -0.18, 0.19)),
    ("glass", ellipse(0, -0.18, 0.14)),
)  # fmt: skip
_BALLOON: _Outlines = (
    ("metal", line("M0 .5 C.12 .64 -.12 .8 .02 1.1", 0.05)),
    ("dark", polygon((0, 0.36), (0.12, 0.56), (-0.12, 0.56))),
    ("main", curve("M0 .44 C-.3 .36 -.62 -.02 -.62 -.42 C-.62 -.78 -.34 -1 0 -1 C.34 -1 .62 -.78 .62 -.42 "
                   "C.62 -.02 .3 .36 0 .44 Z")),
    ("light", ellipse(-0.28, -0.6, 0.09, 0.17, turn=25)),
)  # fmt: skip
_KITE: _Outlines = (
    ("metal", line("M0 .4 C.25 .6 -.2 .8 .1 1.1", 0.05)),
    ("rose", polygon((0.02, 0.68), (0.22, 0.58), (0.2, 0.8))),
    ("rose", polygon((0.02, 0.68), (-0.18, 0.56), (-0.18, 0.8))),
    ("main", polygon((0, -1), (0.62, -0.34), (0, 0.5), (-0.62, -0.34))),
    ("dark", line("M0 -.98 L0 .48", 0.05)),
    ("dark", line("M-.6 -.34 L.6 -.34", 0.05)),
)
_CUP: _Outlines = (
    ("dark", ellipse(0.52, 0.02, 0.42, 0.4)),
    ("hole", ellipse(0.52, 0.02, 0.23, 0.22)),
    ("main", curve("M-.8 -.55 L.5 -.55 L.46 .45 C.44 .75 .3 .85 .1 .85 L-.4 .85 C-.6 .85 -.74 .75 -.76 .45 Z")),
    ("light", ellipse(-0.15, -0.55, 0.65, 0.15)),
    ("wood", ellipse(-0.15, -0.54, 0.53, 0.095)),
)
_BOTTLE: _Outlines = (
    ("main", curve("M-.14 -.72 L.14 -.72 L.14 -.42 C.16 -.26 .36 -.2 .36 .06 L.36 .88 C.36 .96 .3 1 .22 1 L-.22 1 "
                   "C-.3 1 -.36 .96 -.36 .88 L-.36 .06 C-.36 -.2 -.16 -.26 -.14 -.42 Z")),
    ("dark", rectangle(-0.19, -1, 0.19, -0.7, 0.06)),
    ("white", rectangle(-0.36, 0.26, 0.36, 0.66)),
)  # fmt: skip
_UMBRELLA: _Outlines = (
    ("wood", rectangle(-0.04, -1.02, 0.04, 0.6)),
    ("wood", arc(0.16, 0.6, 0.16, 0, 180, 0.085)),
    ("main", curve("M-1 .08 C-1 -.52 -.55 -.9 0 -.9 C.55 -.9 1 -.52 1 .08 C.86 -.1 .52 -.1 .36 .08 "
                   "C.22 -.1 -.22 -.1 -.36 .08 C-.52 -.1 -.86 -.1 -1 .08 Z")),
    ("dark", curve("M0 -.9 C.2 -.6 .34 -.3 .36 .08 C.22 -.1 -.22 -.1 -.36 .08 C-.34 -.3 -.2 -.6 0 -.9 Z")),
)  # fmt: skip
_KEY: _Outlines = (
    ("main", rectangle(-0.3, -0.1, 1, 0.1, 0.04)),
    ("main", rectangle(0.58, 0.0, 0.72, 0.32)),
    ("main", rectangle(0.84, 0.0, 1.0, 0.4)),
    ("main", ellipse(-0.58, 0, 0.42)),
    ("hole", ellipse(-0.62, 0, 0.2)),
)
_GIFT: _Outlines = (
    ("main", rectangle(-0.82, -0.2, 0.82, 0.95, 0.05)),
    ("dark", rectangle(-0.94, -0.42, 0.94, -0.08, 0.05)),
    ("sunny", rectangle(-0.13, -0.42, 0.13, 0.95)),
    *_both("sunny", curve("M0 -.4 C.1 -.8 .4 -1 .56 -.86 C.7 -.7 .5 -.42 0 -.4 Z")),
    *_both("dark", curve("M.14 -.5 C.2 -.7 .38 -.82 .46 -.74 C.52 -.64 .4 -.52 .14 -.5 Z")),
)
_BELL: _Outlines = (
    ("dark", ellipse(0, 0.78, 0.2)),
    ("main", ellipse(0, -0.82, 0.16)),
    ("main", curve("M-.94 .7 C-.94 .56 -.62 .5 -.6 .1 C-.6 -.5 -.4 -.8 0 -.8 C.4 -.8 .6 -.5 .6 .1 "
                   "C.62 .5 .94 .56 .94 .7 Z")),
    ("dark", rectangle(-0.94, 0.58, 0.94, 0.74, 0.07)),
)  # fmt: skip
_LAMP: _Outlines = (
    ("metal", rectangle(-0.07, 0.0, 0.07, 0.9)),
    ("dark", curve("M-.46 .98 C-.46 .78 .46 .78 .46 .98 Z")),
    ("main", polygon((-0.4, -0.95), (0.4, -0.95), (0.74, 0.12), (-0.74, 0.12))),
    ("light", polygon((-0.72, 0.04), (0.72, 0.04), (0.75, 0.14), (-0.75, 0.14))),
)
_TABLE: _Outlines = (
    *_both("dark", polygon((0.6, -0.3), (0.8, -0.3), (0.86, 0.62), (0.7, 0.62))),
    ("main", rectangle(-1, -0.52, 1, -0.2, 0.05)),
)
_BOX: _Outlines = (
    ("main", rectangle(-0.95, -0.7, 0.95, 0.7)),
    ("dark", rectangle(-1, -0.74, 1, -0.4)),
    ("cream", rectangle(-0.18, -0.74, 0.18, 0.02)),
)
_CHAIR: _Outlines = (
    ("dark", polygon((-0.56, 0.2), (-0.38, 0.2), (-0.42, 1), (-0.56, 1))),
    ("dark", polygon((0.36, 0.2), (0.56, 0.2), (0.58, 1), (0.44, 1))),
    ("main", rectangle(-0.6, -1, -0.36, 0.3, 0.08)),
    ("main", rectangle(-0.62, 0.06, 0.62, 0.34, 0.08)),
)
_CROWN: _Outlines = (
    ("main", polygon((-0.85, 0.7), (-1, -0.4), (-0.5, 0.05), (0, -0.75), (0.5, 0.05), (1, -0.4), (0.85, 0.7))),
    ("dark", rectangle(-0.85, 0.42, 0.85, 0.72, 0.04)),
    ("glass", ellipse(0, 0.57, 0.1)),
    *_both("rose", ellipse(0.48, 0.57, 0.085)),
    ("dark", ellipse(0, -0.76, 0.13)),
    *_both("dark", ellipse(0.98, -0.42, 0.11)),
)
_HAT: _Outlines = (
    ("main", curve("M-.56 .45 L-.5 -.62 C-.5 -.78 .5 -.78 .5 -.62 L.56 .45 Z")),
    ("dark", polygon((-0.545, 0.12), (0.545, 0.12), (0.57, 0.5), (-0.57, 0.5))),
    ("main", ellipse(0, 0.52, 1, 0.2)),
)
_SHIRT: _Outlines = (
    ("main", curve("M-.36 -.85 C-.2 -.66 .2 -.66 .36 -.85 L.62 -.74 L1 -.16 L.68 .06 L.52 -.14 L.52 .9 L-.52 .9 "
                   "L-.52 -.14 L-.68 .06 L-1 -.16 L-.62 -.74 Z")),
    ("dark", curve("M-.36 -.85 C-.2 -.66 .2 -.66 .36 -.85 L.46 -.81 C.24 -.52 -.24 -.52 -.46 -.81 Z")),
)  # fmt: skip
_ICE_CREAM: _Outlines = (
    ("waffle", polygon((-0.4, 0.05), (0.4, 0.05), (0, 1.1))),
    ("wood", line("M-.26 .42 L.12 .1", 0.04)),
    ("wood", line("M-.14 .74 L.3 .32", 0.04)),
    ("wood", line("M.26 .42 L-.12 .1", 0.04)),
    ("wood", line("M.14 .74 L-.3 .32", 0.04)),
    ("main", ellipse(0, -0.38, 0.56, 0.52)),
    *_both("main", ellipse(0.38, 0.0, 0.17)),
    ("main", ellipse(0, 0.02, 0.26, 0.19)),
    ("rose", ellipse(0.06, -0.93, 0.15)),
)
_BOOK: _Outlines = (
    ("white", rectangle(-0.6, -0.8, 0.74, 0.92, 0.04)),
    ("main", rectangle(-0.74, -0.95, 0.66, 0.8, 0.06)),
    ("dark", rectangle(-0.74, -0.95, -0.5, 0.8, 0.06)),
    ("cream", rectangle(-0.26, -0.62, 0.46, -0.2, 0.05)),
)

OBJECTS: tuple[Kind, ...] = (
    kind("house", "object", *_HOUSE, stands=True, max_tilt=2),
    kind("castle", "object", *_CASTLE, stands=True, max_tilt=2),
    kind("car", "vehicle", *_CAR, stands=True, max_tilt=3),
    kind("bus", "vehicle", *_BUS, plural="buses", stands=True, top=0.8, max_tilt=3),
    kind("boat", "vehicle", *_BOAT, max_tilt=6),
    kind("rocket", "vehicle", *_ROCKET, max_tilt=25),
    kind("balloon", "object", *_BALLOON),
    kind("kite", "object", *_KITE, max_tilt=20),
    kind("cup", "object", *_CUP, stands=True, max_tilt=3),
    kind("bottle", "object", *_BOTTLE, stands=True, max_tilt=5),
    kind("umbrella", "object", *_UMBRELLA, max_tilt=15),
    kind("key", "object", *_KEY, max_tilt=25),
    kind("gift", "object", *_GIFT, stands=True, max_tilt=4),
    kind("bell", "object", *_BELL),
    kind("lamp", "object", *_LAMP, stands=True, max_tilt=2),
    kind("table", "object", *_TABLE, stands=True, top=0.9, max_tilt=0),
    kind("box", "object", *_BOX, plural="boxes", stands=True, top=0.9, max_tilt=2),
    kind("chair", "object", *_CHAIR, stands=True, max_tilt=2),
    kind("crown", "object", *_CROWN, stands=True),
    kind("hat", "object", *_HAT, max_tilt=8),
    kind("shirt", "object", *_SHIRT),
    kind("ice cream cone", "object", *_ICE_CREAM),
    kind("book", "object", *_BOOK, stands=True, top=0.6, max_tilt=4),
)
