"""Cutting out against pictures whose parts are known."""

from __future__ import annotations

import numpy as np

from kilonova.studio.matting import cut_out


def test_nothing_of_the_background_goes_along() -> None:
    rows, columns = np.mgrid[:80, :100]
    distance = np.hypot(rows - 40, columns - 50)
    alpha = ((30 - distance) / 8).clip(0, 1).astype(np.float32)
    front = np.stack((200 + columns / 4, 40 + rows / 4, 30 + 0 * rows), axis=-1)
    behind = np.stack((20 + 0 * rows, 90 + columns / 5, 220 - rows / 5), axis=-1)
    picture = np.rint(alpha[..., None] * front + (1 - alpha[..., None]) * behind).astype(np.uint8)
    found = cut_out(picture, alpha)
    assert np.array_equal(found[..., 3], np.rint(alpha * 255))
    assert np.array_equal(found[alpha == 1][:, :3], picture[alpha == 1])
    assert np.array_equal(found[alpha == 0][:, :3], picture[alpha == 0])
    border = (alpha > 0.1) & (alpha < 0.9)
    error, before = (np.abs(image[..., :3][border] - front[border]).mean() for image in (found, picture))
    assert before > 50
    assert error < 8


def test_a_cut_with_sharp_borders_changes_no_color() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (9, 12, 3)).astype(np.uint8)
    alpha = (np.arange(12) > 5).astype(np.float32) * np.ones((9, 1), np.float32)
    assert np.array_equal(cut_out(picture, alpha)[..., :3], picture)
