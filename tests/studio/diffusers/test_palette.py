from __future__ import annotations

import numpy as np

from kilonova.data.world.colours import lab
from kilonova.studio.diffusers.palette import colour_words, patches_of, recoloured

COLORS = ((226, 54, 54), (40, 96, 230), (250, 210, 60))


def test_patches_show_every_colour_and_little_else():
    picture = patches_of(COLORS, 120, 80, np.random.default_rng(0))
    assert picture.shape == (80, 120, 3)
    distances = np.linalg.norm(lab(picture)[:, :, None] - lab(np.array(COLORS)), axis=-1)
    assert (distances < 10).any((0, 1)).all()
    assert np.median(distances.min(-1)) < 30


def test_a_recoloured_picture_is_nearer_to_the_palette():
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)

    def distance(found):
        return np.linalg.norm(lab(found)[:, :, None] - lab(np.array(COLORS)), axis=-1).min(-1).mean()

    assert distance(recoloured(picture, COLORS)) < 0.6 * distance(picture)
    flat = np.full((4, 4, 3), COLORS[1], np.uint8)
    np.testing.assert_array_equal(recoloured(flat, COLORS), flat)


def test_colours_are_named_once_each():
    assert colour_words([*COLORS, (230, 50, 50)]) == "red, blue, yellow"
