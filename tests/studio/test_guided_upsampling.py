"""Guided upsampling against what it should leave as it is, restore, and plain formulas."""

from __future__ import annotations

import numpy as np
from PIL import Image

from kilonova.studio.guided_upsampling import guided_upsampling, luma


def test_luma_is_that_of_rec_709() -> None:
    picture = np.array([[(255, 255, 255), (255, 0, 0), (0, 255, 0), (0, 0, 0)]], np.uint8)
    np.testing.assert_allclose(luma(picture), [[1, 0.2126, 0.7152, 0]], atol=1e-6)


def test_nothing_changes_at_the_same_size_and_flat_guides_add_nothing() -> None:
    generator = np.random.default_rng(0)
    values, guide = generator.random((2, 9, 7)).astype(np.float32)
    np.testing.assert_allclose(guided_upsampling(values, guide, guide), values, atol=1e-6)
    flat = guided_upsampling(values, np.full((9, 7), 0.4, np.float32), np.full((27, 21), 0.4, np.float32))
    plain = Image.fromarray(values).resize((21, 27), Image.Resampling.BILINEAR)
    np.testing.assert_allclose(flat[3:-3, 3:-3], np.asarray(plain)[3:-3, 3:-3], atol=1e-5)


def test_slopes_are_those_of_least_squares() -> None:
    generator = np.random.default_rng(1)
    values, small = generator.random((2, 8, 8)).astype(np.float32)
    slopes = np.zeros((8, 8))
    for y in range(8):
        for x in range(8):
            window = slice(max(0, y - 2), y + 3), slice(max(0, x - 2), x + 3)
            g, v = small[window].astype(np.float64), values[window].astype(np.float64)
            slopes[y, x] = ((g - g.mean()) * (v - v.mean())).mean() / (g.var() + 1e-3)
    mean = [[slopes[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3].mean() for x in range(8)] for y in range(8)]
    raised = guided_upsampling(values * 0.2 + 0.4, small, small + 0.1)
    np.testing.assert_allclose(raised, values * 0.2 + 0.4 + 0.1 * 0.2 * np.array(mean), atol=1e-4)


def test_borders_come_back_sharp() -> None:
    side, factor = 256, 8
    y, x = np.mgrid[:side, :side] + 0.5
    inside = np.hypot(x - 120, y - 140) < 75
    picture = np.where(inside[..., None], (230, 120, 40), (40, 60, 130)).astype(np.uint8)
    small = Image.fromarray(picture).resize((side // factor,) * 2, Image.Resampling.BOX)
    values = inside.reshape(side // factor, factor, -1, factor).mean((1, 3)).astype(np.float32)
    guided = guided_upsampling(values, luma(np.asarray(small)), luma(picture))
    plain = np.asarray(Image.fromarray(values).resize((side, side), Image.Resampling.BILINEAR))
    assert np.abs(guided - inside).mean() < 0.35 * np.abs(plain - inside).mean()
    assert ((guided > 0.5) == inside).mean() > 0.999
