"""Which part of a picture is drawn, at which size."""

from __future__ import annotations

import numpy as np
import pytest

from kilonova.core.errors import InvalidRequest
from kilonova.studio.regions import around, whole
from kilonova.studio.sizes import behind, between, nearest_size, resize, resize_mask, shown_box

SIZES = [(128, 128), (160, 96), (96, 160), (256, 64), (64, 256)]


def test_the_nearest_aspect_is_found_by_ratio() -> None:
    assert nearest_size(1024, 1024, SIZES) == (128, 128)
    assert nearest_size(1280, 720, SIZES) == (160, 96)
    assert nearest_size(320, 1280, SIZES) == (64, 256)
    assert nearest_size(1000, 790, SIZES) == (128, 128)
    assert nearest_size(1000, 760, SIZES) == (160, 96)


def test_what_is_behind_a_shown_picture_shows_it() -> None:
    """A control at native size agrees with itself once the drawn picture is cut to the size asked for."""
    rows, columns = np.mgrid[:300, :450]
    picture = np.stack((columns / 2, rows / 2, (rows + columns) / 4), axis=-1).astype(np.uint8)
    native = behind(picture, (160, 96), (600, 400))
    assert native.shape == (96, 160, 3)
    shown = resize(native, (450, 300), shown_box((160, 96), (600, 400)))
    error = np.abs(shown.astype(int) - picture)[12:-12, 12:-12]
    assert error.max() <= 3
    wide = behind(picture, (160, 96), (900, 300))
    shown = resize(wide, (450, 150), shown_box((160, 96), (900, 300)))
    assert np.abs(shown.astype(int) - picture[75:225])[12:-12, 12:-12].max() <= 4


def test_pictures_are_stretched_a_little_before_they_are_cut() -> None:
    assert shown_box((160, 96), (512, 288)) == (0, 0, 160, 96)
    assert shown_box((128, 128), (1024, 1024)) == (0, 0, 128, 128)
    left, top, right, bottom = shown_box((160, 96), (1280, 320))
    assert (left, right) == (0, 160)
    assert top + bottom == pytest.approx(96)
    assert 4 / (160 / (bottom - top)) == pytest.approx(1.12)
    left, top, right, bottom = shown_box((160, 96), (320, 320))
    assert (top, bottom) == (0, 96)
    assert (right - left) / 96 == pytest.approx(1.12)


def test_sizes_between_those_known_are_drawn_too() -> None:
    known = [(128, 128), (160, 96), (96, 160)]
    assert between(known, 16) == (*known, (112, 144), (144, 112))
    assert between(known, 32) == tuple(known)
    assert between([(64, 64)], 16) == ((64, 64),)


def test_masks_lose_nothing_when_they_shrink() -> None:
    mask = np.zeros((100, 90), bool)
    mask[33, 41] = True
    small = resize_mask(mask, (30, 20))
    assert small.sum() == 1
    assert small[33 * 20 // 100, 41 * 30 // 90]
    assert np.array_equal(resize_mask(mask, (90, 100)), mask)


@pytest.mark.parametrize("seed", range(20))
def test_a_region_holds_its_mask_and_lies_in_the_picture(seed: int) -> None:
    generator = np.random.default_rng(seed)
    height, width = generator.integers(20, 900, 2)
    mask = np.zeros((height, width), bool)
    top, left = generator.integers(0, height - 10), generator.integers(0, width - 10)
    mask[top : top + generator.integers(1, height), left : left + generator.integers(1, width)] = True
    region = around(mask, SIZES)
    assert region.cut(mask).sum() == mask.sum()
    assert region.cut(mask).shape == (region.height, region.width)
    assert region.width <= width
    assert region.height <= height


def test_a_small_thing_is_drawn_at_full_size() -> None:
    mask = np.zeros((1000, 1200), bool)
    mask[500:530, 600:640] = True
    region = around(mask, SIZES)
    assert (region.width, region.height, region.native) == (128, 128, (128, 128))
    mask[300:700, 400:1000] = True
    region = around(mask, SIZES)
    assert region.native == (128, 128)
    assert (region.width, region.height) == (1200, 1000)
    mask[:] = False
    mask[100:200, 50:350] = True
    wide = around(mask, SIZES, 0.05)
    assert wide.native == (160, 96)
    assert wide.width / wide.height == pytest.approx(160 / 96, rel=0.01)
    assert whole(mask, SIZES).native == (128, 128)
    with pytest.raises(InvalidRequest, match="selects no pixel"):
        around(np.zeros((9, 9), bool), SIZES)
