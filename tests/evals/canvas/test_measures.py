"""Measures of pictures against scikit-image, pixel by pixel, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.color import deltaE_ciede2000, rgb2lab
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from kilonova.data.world.render import render
from kilonova.data.world.sampling import SceneConfig, sample_scene
from kilonova.evals.canvas.adherence import edge_f1, swatches
from kilonova.evals.canvas.colour_difference import colour_difference, to_palette
from kilonova.evals.canvas.fidelity import psnr, ssim
from kilonova.evals.canvas.locality import unchanged
from kilonova.evals.canvas.recogniser import thing_colour


def over(picture: np.ndarray, ground: int) -> np.ndarray:
    alpha = picture[..., 3:] / 255
    return picture[..., :3] * alpha + ground * (1 - alpha)


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    original = render(sample_scene(5, SceneConfig(task="free")), 64, background="transparent").image
    noise = np.random.default_rng(0).integers(-20, 21, original.shape)
    return original, np.clip(original.astype(int) + noise, 0, 255).astype(np.uint8)


def test_psnr_and_ssim_are_those_of_scikit_image_over_both_grounds(pair: tuple[np.ndarray, np.ndarray]) -> None:
    original, found = pair
    grounds = [(over(original, ground), over(found, ground)) for ground in (0, 255)]
    ratios = [peak_signal_noise_ratio(one, other, data_range=255) for one, other in grounds]
    error = np.mean([10 ** (-ratio / 10) for ratio in ratios])
    assert psnr(found, original) == pytest.approx(-10 * np.log10(error))
    options = {"data_range": 255, "channel_axis": -1, "gaussian_weights": True, "use_sample_covariance": False}
    similarities = [structural_similarity(one, other, sigma=1.5, **options) for one, other in grounds]
    assert ssim(found, original) == pytest.approx(np.mean(similarities))
    assert psnr(original, original) == 100
    assert ssim(original, original) == pytest.approx(1)


def test_what_is_wholly_transparent_has_no_colour(pair: tuple[np.ndarray, np.ndarray]) -> None:
    original = pair[0]
    other = original.copy()
    other[other[..., 3] == 0, :3] = 77
    assert (original != other).any()
    assert psnr(other, original) == 100
    other[..., 3] = 255
    assert psnr(other, original) < 15


def test_colours_differ_as_in_scikit_image() -> None:
    generator = np.random.default_rng(0)
    colours, palette = (generator.integers(256, size=(count, 3), dtype=np.uint8) for count in (6, 4))
    expected = [
        min(float(deltaE_ciede2000(rgb2lab(one / 255), rgb2lab(other / 255))) for other in palette) for one in colours
    ]
    np.testing.assert_allclose(to_palette(colours, palette), expected, rtol=1e-9)
    np.testing.assert_array_equal(to_palette(palette, palette), np.zeros(4))
    assert colour_difference(np.zeros((5, 7, 3), np.uint8), colours[0]).shape == (5, 7)
    strip = swatches(((1, 2, 3), (4, 5, 6)), 10, 2)
    assert strip.shape == (2, 10, 3)
    assert strip[1, 4].tolist() == [1, 2, 3]
    assert strip[0, 5].tolist() == [4, 5, 6]


def test_edges_count_within_the_tolerance() -> None:
    generator = np.random.default_rng(0)
    found, wanted = (generator.random((24, 20)) < 0.03 for _ in range(2))

    def near(one: np.ndarray, other: np.ndarray, tolerance: int) -> float:
        points, others = np.argwhere(one), np.argwhere(other)
        return float(np.mean([min(np.hypot(*(point - each)) for each in others) <= tolerance for point in points]))

    for tolerance in (0, 1, 2, 5):
        precision, recall = near(found, wanted, tolerance), near(wanted, found, tolerance)
        expected = 2 * precision * recall / (precision + recall) if precision + recall else 0
        assert edge_f1(found, wanted, tolerance) == pytest.approx(expected)
    line, blank = np.zeros((9, 9), bool), np.zeros((9, 9), bool)
    line[4] = True
    assert edge_f1(line, np.roll(line, 2, axis=0), 2) == 1
    assert edge_f1(line, np.roll(line, 3, axis=0), 2) == 0
    assert edge_f1(blank, blank) == 1
    assert edge_f1(line, blank) == edge_f1(blank, line) == 0


def test_one_pixel_outside_a_mask_is_a_change() -> None:
    before = np.random.default_rng(0).integers(256, size=(8, 8, 3), dtype=np.uint8)
    after, where = before.copy(), np.ones((8, 8), bool)
    where[2:5, 2:5] = False
    after[3, 3] ^= 255
    assert unchanged(before, after, where)
    after[0, 7, 2] ^= 1
    assert not unchanged(before, after, where)
    assert not unchanged(before, after[:7], where)


def test_the_colour_of_a_thing_is_its_own_and_not_that_of_its_accents() -> None:
    right = []
    for index in range(60):
        scene = sample_scene((3, index), SceneConfig(task="colour_binding" if index % 2 else "free"))
        drawn = render(scene, 96)
        for thing, mask in zip(scene.objects, drawn.masks, strict=True):
            if mask.sum() >= 40:
                right.append(thing_colour(drawn.image, mask) == thing.colour)
    assert len(right) > 100
    assert np.mean(right) > 0.98
    grey = np.full((4, 4, 3), 120, np.uint8)
    assert thing_colour(grey, np.ones((4, 4), bool)) == "gray"
