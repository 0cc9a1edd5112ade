"""Outlines against formulas, and what every kind must fulfil."""

from __future__ import annotations

import numpy as np
import pytest

from kilonova.data.world import colours, paths
from kilonova.data.world.kinds import KINDS, TEXTURES
from kilonova.data.world.raster import ROLES
from kilonova.data.world.render import render
from kilonova.data.world.scene import Pose, Scene, SceneObject


def area(points: np.ndarray) -> float:
    ahead = np.roll(points, -1, axis=0)
    return abs((points[:, 0] * ahead[:, 1] - points[:, 1] * ahead[:, 0]).sum()) / 2


def alone(kind: str, colour: str, texture: str = "plain", rotation: float = 0.0) -> Scene:
    return Scene((SceneObject(kind, colour, texture, "large", Pose(0.5, 0.5, 0.4, rotation)),))


def test_areas_of_outlines_are_those_of_the_formulas() -> None:
    assert area(paths.ellipse(0.3, -0.2, 1.5, 0.5, turn=30)) == pytest.approx(np.pi * 0.75, rel=0.005)
    assert area(paths.rectangle(-1, -0.5, 1, 0.5, 0.2)) == pytest.approx(2 - (4 - np.pi) * 0.04, rel=0.005)
    assert area(paths.regular(6)) == pytest.approx(1.5 * 3**0.5)
    assert area(paths.arc(0, 0, 1, 0, 90, 0.2)) == pytest.approx(0.2 * np.pi / 2 + np.pi * 0.01, rel=0.01)
    assert area(paths.line("M0 0 L2 0", 0.5)) == pytest.approx(1 + np.pi * 0.0625, rel=0.01)


def test_curves_follow_bezier_polynomials() -> None:
    points = paths.curve("M0 0 C0 1 1 1 1 0 Q2 -1 3 0 L3 2 Z")
    t = np.linspace(0, 1, 13)
    np.testing.assert_allclose(points[:13, 1], 3 * (1 - t) ** 2 * t + 3 * (1 - t) * t**2, atol=1e-12)
    np.testing.assert_allclose(points[:13, 0], 3 * (1 - t) * t**2 + t**3, atol=1e-12)
    np.testing.assert_allclose(points[13:25, 1], -2 * t[1:] * (1 - t[1:]), atol=1e-12)
    np.testing.assert_allclose(points[-1], (3, 2))


@pytest.mark.parametrize("clockwise", [True, False])
def test_widening_a_polygon_moves_its_edges(clockwise: bool) -> None:
    square = paths.rectangle(-1, -1, 1, 1)
    square = square if clockwise else square[::-1]
    assert area(paths.widened(square, 0.25)) == pytest.approx(2.5**2)
    assert area(paths.widened(square, -0.25)) == pytest.approx(1.5**2)


def test_lab_agrees_with_published_values_of_srgb_primaries() -> None:
    found = colours.lab(np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]))
    expected = [[53.24, 80.09, 67.20], [87.74, -86.18, 83.18], [32.30, 79.19, -107.86], [100, 0, 0]]
    np.testing.assert_allclose(found, expected, atol=0.06)


def test_named_colours_are_far_apart() -> None:
    names = list(colours.COLOURS)
    apart = [colours.distance(colours.COLOURS[a], colours.COLOURS[b]) for a in names for b in names if a < b]
    assert min(apart) > 25
    np.testing.assert_array_equal(colours.named_colour(np.array(list(colours.COLOURS.values()))), np.arange(len(names)))


@pytest.mark.parametrize("name", KINDS)
def test_kinds_fill_the_unit_square_with_known_roles(name: str) -> None:
    kind = KINDS[name]
    low, high = kind.extent.min(0), kind.extent.max(0)
    assert (high - low).max() == pytest.approx(2)
    np.testing.assert_allclose(low + high, 0, atol=1e-9)
    assert {path.fill for path in kind.paths} <= set(ROLES) - {"second", "contour"}
    assert any(path.fill == "main" for path in kind.paths)


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_in_every_colour_is_mostly_of_that_colour(name: str) -> None:
    for number, (colour, rgb) in list(enumerate(colours.COLOURS.items()))[list(KINDS).index(name) % 3 :: 3]:
        for texture in ("plain", TEXTURES[1 + number % 5]):
            rendered = render(alone(name, colour, texture), 48, background="transparent")
            pixels = rendered.image[rendered.masks[0]][:, :3]
            near = np.linalg.norm(colours.lab(pixels) - colours.lab(np.array(rgb)), axis=-1) < 25
            assert near.mean() > (0.3 if texture == "plain" else 0.18), (colour, texture)
            others = [
                np.linalg.norm(colours.lab(pixels) - colours.lab(np.array(other)), axis=-1) < 12
                for other_name, other in colours.COLOURS.items()
                if other_name not in (colour, "white", "gray", "black", "brown")
            ]
            assert near.sum() > max(other.sum() for other in others), (colour, texture)


def test_no_two_kinds_have_the_same_silhouette() -> None:
    masks = np.stack([render(alone(name, "red"), 48).masks[0] for name in KINDS]).reshape(len(KINDS), -1)
    both = (masks[:, None] & masks[None]).sum(-1) / (masks[:, None] | masks[None]).sum(-1)
    assert both[~np.eye(len(KINDS), dtype=bool)].max() < 0.97


@pytest.mark.parametrize("name", KINDS)
def test_a_turned_kind_stays_in_its_box_and_its_box_touches_it(name: str) -> None:
    for texture in ("plain", "outlined"):
        rendered = render(alone(name, "blue", texture, rotation=KINDS[name].max_tilt), 96)
        rows, columns = np.nonzero(rendered.masks[0])
        left, top, right, bottom = rendered.boxes[0]
        tight = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        assert (np.abs(tight - (left, top, right, bottom)) <= 2.5).all(), texture
        assert columns.min() >= left - 1
        assert rows.min() >= top - 1
        assert columns.max() <= right + 1
        assert rows.max() <= bottom + 1
