"""Edges, colours and regions of pictures whose own are known."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw
from skimage.color import rgb2lab
from skimage.feature import canny

from kilonova.data.pictures.edges import canny_edges
from kilonova.data.pictures.masking import hide, latent_mask
from kilonova.data.pictures.palette import dominant_colours, to_lab
from kilonova.data.pictures.regions import flat_regions, paint_regions


def disc(size: int = 128) -> np.ndarray:
    """A red disc, half as wide as the picture, on blue."""
    image = Image.new("RGB", (size * 4, size * 4), (30, 60, 200))
    ImageDraw.Draw(image).ellipse((size, size, size * 3, size * 3), fill=(220, 30, 30))
    return np.asarray(image.reduce(4))


@pytest.mark.parametrize("size", [128, 256])
def test_edges_lie_where_the_colour_changes(size: int) -> None:
    edges = canny_edges(disc(size))
    assert edges.shape == (size, size, 3)
    assert set(np.unique(edges)) == {0, 255}
    y, x = np.nonzero(edges[..., 0])
    radius = np.hypot(y - size / 2 + 0.5, x - size / 2 + 0.5)
    assert np.abs(radius - size / 4).max() < 1.6
    assert len(y) > 0.8 * 2 * np.pi * size / 4


def test_edges_are_those_of_scikit_image() -> None:
    picture = np.random.default_rng(0).integers(256, size=(96, 64, 3), dtype=np.uint8)
    luma = np.dot(picture / 255, [0.299, 0.587, 0.114])
    expected = canny(luma, sigma=1.0, low_threshold=0.06, high_threshold=0.15)
    assert np.array_equal(canny_edges(picture)[..., 1] == 255, expected)
    assert 0.01 < expected.mean() < 0.5


def test_dominant_colours_are_by_area_apart_and_of_what_is_seen() -> None:
    picture = np.zeros((40, 40, 4), np.uint8)
    picture[:20] = (200, 40, 40, 255)
    picture[20:30] = (40, 200, 60, 255)
    picture[30:34, :10] = (43, 196, 60, 255)
    picture[30:34, 10:20] = (30, 30, 220, 255)
    assert dominant_colours(picture, 10).tolist() == [[200, 40, 40], [40, 200, 60], [30, 30, 220]]
    assert dominant_colours(picture, 2).tolist() == [[200, 40, 40], [40, 200, 60]]
    assert dominant_colours(picture[..., :3], 1).tolist() == [[200, 40, 40]]
    assert dominant_colours(np.zeros((8, 8, 4), np.uint8), 3).shape == (0, 3)


def test_lab_is_that_of_scikit_image() -> None:
    colours = np.random.default_rng(0).integers(256, size=(50, 3), dtype=np.uint8)
    found = to_lab(colours)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, rgb2lab(colours), atol=0.02)


def test_regions_are_the_connected_parts_of_one_colour() -> None:
    picture = np.full((64, 64, 3), 240, np.uint8)
    picture[8:24, 8:24] = (220, 30, 30)
    picture[40:56, 8:28] = (220, 30, 30)
    picture[8:20, 40:52] = (30, 60, 200)
    picture[60, 60] = (0, 0, 0)
    regions = flat_regions(picture)
    assert regions.shape == (64, 64, 3)
    colours = {tuple(regions[place].tolist()) for place in [(2, 2), (16, 16), (48, 16), (14, 46)]}
    assert len(colours) == 4
    assert tuple(regions[60, 60].tolist()) == tuple(regions[2, 2].tolist())
    interior = np.zeros((64, 64), bool)
    interior[10:22, 10:22] = True
    assert (regions[interior] == regions[16, 16]).all()
    # What is painted stays as it is.
    assert np.array_equal(flat_regions(regions), regions)


def test_regions_are_painted_by_size() -> None:
    labels = np.array([[7, 7, 7, 7], [7, 7, 3, 3]])
    assert np.array_equal(paint_regions(labels), paint_regions(np.where(labels == 7, 0, 9)))
    assert not np.array_equal(paint_regions(labels)[0, 0], paint_regions(labels)[1, 3])


def test_what_is_hidden_cannot_be_known() -> None:
    picture = np.random.default_rng(0).integers(256, size=(16, 24, 4), dtype=np.uint8)
    mask = np.zeros((16, 24), bool)
    mask[4:12, 8:12] = True
    hidden = hide(picture, mask)
    assert not hidden[mask].any()
    assert np.array_equal(hidden[~mask], picture[~mask])
    np.testing.assert_array_equal(latent_mask(mask), [[0, 0.25, 0], [0, 0.25, 0]])
