"""Outlines in unit coordinates, the only thing a kind is made of: polygons, ellipses, curves and strokes, flattened.

x points right and y down. Every function gives float64 `[P, 2]`, the corners of one closed polygon.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

_CURVE_STEPS = 12


@dataclass(frozen=True, eq=False)
class Path:
    """One filled outline of a kind.

    `fill` is a role: "main" (the thing's colour and texture), "light" or "dark" (its companions), "hole" (nothing is
    there), or the name of an accent.
    """

    points: np.ndarray
    fill: str


def polygon(*corners: tuple[float, float]) -> np.ndarray:
    """The corners as given."""
    return np.array(corners, np.float64)


def ellipse(
    x: float, y: float, width: float, height: float | None = None, *, turn: float = 0, start: float = 0,
    stop: float = 360,
) -> np.ndarray:  # fmt: skip
    """An ellipse of half axes `width` and `height`, turned clockwise by `turn` degrees; or an arc closed by a chord."""
    height = width if height is None else height
    steps = max(8, int(44 * abs(stop - start) / 360))
    angle = np.radians(np.linspace(start, stop, steps, endpoint=abs(stop - start) < 360))
    points = turned(np.stack([width * np.cos(angle), height * np.sin(angle)], 1), turn)
    return moved(points, x, y)


def rectangle(left: float, top: float, right: float, bottom: float, radius: float = 0) -> np.ndarray:
    """An upright rectangle, its corners rounded by `radius`."""
    if not radius:
        return polygon((left, top), (right, top), (right, bottom), (left, bottom))
    quarter = ((right, bottom, 0), (left, bottom, 90), (left, top, 180), (right, top, 270))
    middle_x, middle_y = (left + right) / 2, (top + bottom) / 2
    return np.concatenate([
        ellipse(x - radius * np.sign(x - middle_x), y - radius * np.sign(y - middle_y), radius, start=a, stop=a + 90)
        for x, y, a in quarter
    ])  # fmt: skip


def regular(corners: int, radius: float = 1.0, *, turn: float = -90) -> np.ndarray:
    """A regular polygon, its first corner at `turn` degrees (-90 is up)."""
    angle = np.radians(turn + np.arange(corners) * 360 / corners)
    return radius * np.stack([np.cos(angle), np.sin(angle)], 1)


def star(tips: int, outer: float = 1.0, inner: float = 0.45) -> np.ndarray:
    """A star with its first tip up."""
    points = regular(2 * tips)
    points[::2] *= outer
    points[1::2] *= inner
    return points


def curve(data: str) -> np.ndarray:
    """One closed SVG path with absolute M, L, Q, C and Z commands, flattened."""
    points: list[np.ndarray] = []
    t = np.linspace(0, 1, _CURVE_STEPS + 1)[1:, None]
    for command, numbers in re.findall(r"([MLQCZ])([^MLQCZ]*)", data):
        pairs = np.array([float(n) for n in re.findall(r"-?\d*\.?\d+", numbers)]).reshape(-1, 2)
        if command in "ML":
            points.extend(pairs)
        elif command == "Q":
            for control, end in pairs.reshape(-1, 2, 2):
                points.extend((1 - t) ** 2 * points[-1] + 2 * t * (1 - t) * control + t**2 * end)
        elif command == "C":
            for first, second, end in pairs.reshape(-1, 3, 2):
                s = 1 - t
                points.extend(s**3 * points[-1] + 3 * s**2 * t * first + 3 * s * t**2 * second + t**3 * end)
    return np.array(points)


def stroke(line: np.ndarray, width: float) -> np.ndarray:
    """The outline of a line `[P, 2]` of the given width with round ends."""
    along = np.gradient(line, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    across = np.stack([-along[:, 1], along[:, 0]], 1) * width / 2
    ends = [np.degrees(np.arctan2(*across[i, ::-1])) for i in (-1, 0)]
    cap_end = moved(ellipse(0, 0, width / 2, start=ends[0], stop=ends[0] - 180), *line[-1])
    cap_start = moved(ellipse(0, 0, width / 2, start=ends[1] + 180, stop=ends[1]), *line[0])
    return np.concatenate([line + across, cap_end, (line - across)[::-1], cap_start])


def line(data: str, width: float) -> np.ndarray:
    """A stroke along an open path given as in `curve`."""
    points = curve(data)
    if len(points) == 2:
        points = np.linspace(points[0], points[1], 3)
    return stroke(points, width)


def arc(x: float, y: float, radius: float, start: float, stop: float, width: float) -> np.ndarray:
    """A stroke along a circle from angle `start` to `stop` in degrees, clockwise from the right."""
    angle = np.radians(np.linspace(start, stop, 20))
    return stroke(np.stack([x + radius * np.cos(angle), y + radius * np.sin(angle)], 1), width)


def widened(points: np.ndarray, margin: float) -> np.ndarray:
    """A polygon with its edges moved outwards by `margin` (inwards if negative), corners mitred up to twice that."""
    points = points[np.abs(points - np.roll(points, 1, axis=0)).max(1) > 1e-9]
    edges = np.roll(points, -1, axis=0) - points
    edges /= np.linalg.norm(edges, axis=1, keepdims=True)
    ahead = np.roll(points, -1, axis=0)
    clockwise = np.sign((points[:, 0] * ahead[:, 1] - points[:, 1] * ahead[:, 0]).sum())
    outward = np.stack([edges[:, 1], -edges[:, 0]], 1) * clockwise
    corner = outward + np.roll(outward, 1, axis=0)
    corner *= 2 / np.maximum((corner**2).sum(1, keepdims=True), 1.0)
    return points + margin * corner


def moved(points: np.ndarray, x: float, y: float) -> np.ndarray:
    """Points shifted to the right by `x` and down by `y`."""
    return points + np.array([x, y])


def turned(points: np.ndarray, degrees: float) -> np.ndarray:
    """Points turned clockwise about the origin."""
    angle = np.radians(degrees)
    cos, sin = np.cos(angle), np.sin(angle)
    return points @ np.array([[cos, sin], [-sin, cos]])


def mirrored(points: np.ndarray) -> np.ndarray:
    """Points with left and right exchanged."""
    return points * np.array([-1, 1])
