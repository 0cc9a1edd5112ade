"""The body of a paper doll: where its joints are, and the outlines of what is not clothes.

x points right, y down; the doll stands around the origin, from its hair at -1 to its soles at 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from kilonova.data.world.paths import arc, curve, ellipse, mirrored, moved

HEAD = (0.0, -0.66)
SHOULDER = (0.165, -0.37)
_HIP = (0.08, 0.14)
_UPPER_ARM, _FOREARM = 0.23, 0.21
_THIGH, _SHIN = 0.36, 0.36


@dataclass(frozen=True)
class DollPose:
    """Angles in degrees from hanging straight down, outwards positive: of both upper arms, forearms and legs.

    Pairs are the arm on the left of the picture, then that on its right.
    """

    words: str
    arms: tuple[float, float]
    forearms: tuple[float, float]
    legs: float


POSES: tuple[DollPose, ...] = (
    DollPose("standing", (16, 16), (10, 10), 4),
    DollPose("standing", (22, 22), (14, 14), 8),
    DollPose("waving", (18, 128), (10, 168), 5),
    DollPose("with both arms raised", (142, 142), (158, 158), 9),
    DollPose("with arms spread", (72, 72), (80, 80), 7),
    DollPose("with hands on hips", (48, 48), (-42, -42), 8),
    DollPose("with one hand on the hip", (48, 15), (-42, 10), 6),
    DollPose("dancing", (100, 50), (150, 105), 14),
)


@dataclass(frozen=True, eq=False)
class Figure:
    """Joints of a doll, float64: arms `[2, 3, 2]` (shoulder, elbow, wrist), legs `[2, 3, 2]` (hip, knee, ankle), the
    left of the picture first; `build` scales widths."""

    arms: np.ndarray
    legs: np.ndarray
    build: float


def figure(pose: DollPose, build: float) -> Figure:
    """Where the joints are."""
    arms, legs = [], []
    for side, sign in enumerate((-1, 1)):
        shoulder = np.array([sign * SHOULDER[0] * build, SHOULDER[1]])
        elbow = shoulder + _towards(pose.arms[side], sign) * _UPPER_ARM
        arms.append([shoulder, elbow, elbow + _towards(pose.forearms[side], sign) * _FOREARM])
        hip = np.array([sign * _HIP[0] * build, _HIP[1]])
        knee = hip + _towards(pose.legs, sign) * _THIGH
        legs.append([hip, knee, knee + _towards(pose.legs / 3, sign) * _SHIN])
    return Figure(np.array(arms), np.array(legs), build)


def limb(joints: np.ndarray, widths: Sequence[float], share: float = 1.0, start: float = 0.0) -> list[np.ndarray]:
    """Outlines that together make a tube along `joints` `[3, 2]`, as wide as given at each, from `start` to `share`
    of its length, with flat ends."""
    stops = [start, *([0.5] if start < 0.5 < share else []), share]
    ends = [(_along(joints, stop), _width(widths, stop) / 2) for stop in stops]
    tube = []
    for (first, before), (second, after) in pairwise(ends):
        along = (second - first) / np.linalg.norm(second - first)
        across = np.array([-along[1], along[0]])
        corners = (first + across * before, second + across * after, second - across * after, first - across * before)
        tube.append(np.array(corners))
    return tube + [moved(ellipse(0, 0, radius), *place) for place, radius in ends[1:-1]]


def rounded(joints: np.ndarray, widths: Sequence[float], share: float = 1.0) -> list[np.ndarray]:
    """A tube as `limb`, with round ends."""
    caps = [moved(ellipse(0, 0, _width(widths, stop) / 2), *_along(joints, stop)) for stop in (0, share)]
    return [*limb(joints, widths, share), *caps]


def cuff(joints: np.ndarray, widths: Sequence[float], share: float, length: float = 0.07) -> list[np.ndarray]:
    """The last piece of a tube that ends at `share`."""
    return limb(joints, widths, share, share - length)


def neck() -> list[np.ndarray]:
    return [curve("M-.055 -.52 L.055 -.52 L.06 -.42 C.1 -.39 -.1 -.39 -.06 -.42 Z")]


def torso(build: float) -> list[np.ndarray]:
    """The trunk from shoulders to hips."""
    half = curve("M0 -.42 L.08 -.425 C.14 -.42 .185 -.4 .19 -.36 L.15 -.2 C.13 -.1 .12 -.04 .125 0 "
                 "C.15 .06 .165 .12 .16 .2 L0 .24 Z")  # fmt: skip
    return [whole(half) * np.array([build, 1])]


def whole(half: np.ndarray) -> np.ndarray:
    """A symmetric outline of its right half, which begins at the top and ends at the bottom of the middle line."""
    return np.concatenate([half, mirrored(half)[::-1]])


def hands(body: Figure) -> list[np.ndarray]:
    found = []
    for _, elbow, wrist in body.arms:
        along = (wrist - elbow) / np.linalg.norm(wrist - elbow)
        found.append(moved(ellipse(0, 0, 0.05), *(wrist + along * 0.03)))
    return found


def feet(body: Figure) -> list[np.ndarray]:
    return [ellipse(leg[2][0] + sign * 0.02, leg[2][1] + 0.045, 0.075, 0.05)
            for leg, sign in zip(body.legs, (-1, 1), strict=True)]  # fmt: skip


def face() -> list[tuple[str, np.ndarray]]:
    """Eyes, brows, cheeks, nose and mouth, with what fills them."""
    x, y = HEAD
    found: list[tuple[str, np.ndarray]] = []
    for sign in (-1, 1):
        found += [
            ("cheek", ellipse(x + sign * 0.115, y + 0.085, 0.04, 0.027)),
            ("ink", ellipse(x + sign * 0.075, y + 0.02, 0.026, 0.037)),
            ("white", ellipse(x + sign * 0.075 + 0.009, y + 0.006, 0.01)),
            ("brow", arc(x + sign * 0.075, y - 0.02, 0.045, 215, 325, 0.014)),
        ]
    found.append(("shade", ellipse(x, y + 0.065, 0.014, 0.01)))
    found.append(("mouth", arc(x, y + 0.075, 0.05, 35, 145, 0.017)))
    return found


def head() -> list[np.ndarray]:
    x, y = HEAD
    return [ellipse(x - 0.185, y + 0.03, 0.036), ellipse(x + 0.185, y + 0.03, 0.036), ellipse(x, y, 0.188, 0.205)]


def hair(style: str) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The outlines of a style of `HAIR`, behind the body and in front of the head."""
    return _BACK_HAIR.get(style, []), [_FRINGES[style]] if style != "curly" else _CURLS


def _towards(degrees: float, sign: int) -> np.ndarray:
    angle = np.radians(degrees)
    return np.array([sign * np.sin(angle), np.cos(angle)])


def _width(widths: Sequence[float], share: float) -> float:
    return float(np.interp(share * 2, [0, 1, 2], widths))


def _along(joints: np.ndarray, share: float) -> np.ndarray:
    first, middle, last = joints
    return first + (middle - first) * share * 2 if share < 0.5 else middle + (last - middle) * (share * 2 - 1)


_SWEPT = curve("M-.2 -.58 C-.24 -.98 .24 -.98 .2 -.58 C.18 -.66 .16 -.72 .12 -.77 C.04 -.7 -.08 -.7 -.15 -.72 "
               "C-.17 -.68 -.19 -.64 -.2 -.58 Z")  # fmt: skip
_PARTED = curve("M-.205 -.56 C-.25 -1 .25 -1 .205 -.56 C.2 -.66 .12 -.74 .02 -.81 C-.08 -.76 -.18 -.68 -.205 -.56 Z")
_STRAIGHT = curve("M-.21 -.52 C-.25 -.98 .25 -.98 .21 -.52 L.165 -.54 C.165 -.62 .16 -.68 .15 -.71 L-.15 -.71 "
                  "C-.16 -.68 -.165 -.62 -.165 -.54 Z")  # fmt: skip
_FRINGES = {"short": _SWEPT, "long": _PARTED, "bob": _STRAIGHT, "bun": _PARTED, "ponytail": _SWEPT, "braided": _PARTED}
_CURLS = [
    *(moved(ellipse(0.19 * np.cos(angle), 0.17 * np.sin(angle) - 0.05, 0.075), *HEAD)
      for angle in np.radians(np.linspace(-195, 15, 9))),
    moved(ellipse(0, -0.14, 0.12, 0.075), *HEAD),
]  # fmt: skip
_BRAID = [ellipse(0.215 + 0.012 * (step % 2), -0.5 + 0.068 * step, 0.045, 0.042) for step in range(5)]
_BACK_HAIR: dict[str, list[np.ndarray]] = {
    "long": [curve("M-.21 -.68 C-.25 -.98 .25 -.98 .21 -.68 C.22 -.5 .26 -.36 .25 -.2 C.12 -.14 -.12 -.14 -.25 -.2 "
                   "C-.26 -.36 -.22 -.5 -.21 -.68 Z")],
    "bob": [curve("M-.21 -.68 C-.25 -.98 .25 -.98 .21 -.68 C.23 -.58 .25 -.5 .22 -.44 L-.22 -.44 "
                  "C-.25 -.5 -.23 -.58 -.21 -.68 Z")],
    "bun": [ellipse(0, -0.92, 0.085)],
    "ponytail": [curve("M.1 -.84 C.3 -.92 .42 -.7 .34 -.42 C.33 -.36 .27 -.34 .27 -.4 C.3 -.56 .24 -.7 .1 -.74 Z")],
    "braided": [*_BRAID, *(mirrored(part) for part in _BRAID)],
}  # fmt: skip
HAIR: tuple[str, ...] = (*_FRINGES, "curly")
