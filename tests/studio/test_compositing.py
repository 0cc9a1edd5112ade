"""Compositing against plain formulas."""

from __future__ import annotations

import numpy as np

from kilonova.studio.compositing import composite, feather, feather_outwards, feather_width, match_border


def disc(size: int, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[:size, :size] - size / 2
    return np.hypot(rows, columns) < radius


def test_feathers_stay_on_their_side_of_the_border() -> None:
    mask = disc(60, 20)
    inside, outside = feather(mask, 5), feather_outwards(mask, 5)
    assert not inside[~mask].any()
    assert inside[disc(60, 13)].min() == 1
    assert 0 < inside[mask].min() < 0.1
    assert outside[mask].min() == 1
    assert not outside[~disc(60, 27)].any()
    assert np.all(np.diff(inside[30, 9:31]) >= 0)
    # Where the picture ends nothing has to blend.
    half = np.zeros((10, 40), bool)
    half[:, :20] = True
    assert feather(half, 5)[:, :14].min() == 1
    assert feather(np.ones((4, 4), bool), 5).min() == 1
    assert feather_width(np.pad(np.ones((100, 300), bool), 7)) == 3
    assert feather_width(np.ones((999, 999), bool)) == 6


def test_what_has_no_opacity_is_not_touched() -> None:
    generator = np.random.default_rng(0)
    source, drawn = generator.integers(0, 256, (2, 30, 40, 3)).astype(np.uint8)
    opacity = generator.random((30, 40), dtype=np.float32)
    opacity[generator.random((30, 40)) < 0.5] = 0
    found = composite(source, drawn, opacity)
    assert np.array_equal(found[opacity == 0], source[opacity == 0])
    mixed = opacity[..., None].astype(np.float64) * drawn + (1 - opacity[..., None].astype(np.float64)) * source
    assert np.abs(found - mixed).max() <= 0.501


def test_colours_are_carried_over_as_laplaces_equation_says() -> None:
    generator = np.random.default_rng(0)
    source = generator.integers(100, 150, (11, 13, 3)).astype(np.uint8)
    source[0:4, 6] = 255
    drawn = generator.integers(100, 150, (11, 13, 3)).astype(np.uint8)
    mask = disc(13, 4.5)[:11]
    mask[5:, 9:] = True
    pixels = list(zip(*np.nonzero(mask), strict=True))
    matrix, right = np.zeros((len(pixels), len(pixels))), np.zeros((len(pixels), 3))
    for number, (row, column) in enumerate(pixels):
        for place in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
            if not (0 <= place[0] < 11 and 0 <= place[1] < 13):
                continue
            matrix[number, number] += 1
            if mask[place]:
                matrix[number, pixels.index(place)] -= 1
            else:
                difference = source[place].astype(float) - drawn[place]
                largest = min(np.abs(difference).max() / 48, 1)
                right[number] += difference * (1 - largest**2) ** 2
    expected = source.astype(float)
    expected[mask] = drawn[mask] + np.linalg.solve(matrix, right)
    found = match_border(source, drawn, mask)
    assert np.array_equal(found[~mask], source[~mask])
    assert np.abs(found - expected.clip(0, 255)).max() <= 0.501


def test_a_whole_or_empty_mask_has_no_border_to_match() -> None:
    source, drawn = np.zeros((4, 5, 3), np.uint8), np.full((4, 5, 3), 9, np.uint8)
    assert np.array_equal(match_border(source, drawn, np.ones((4, 5), bool)), drawn)
