"""Pictures, masks and boxes against each other, at many sizes."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from kilonova.core.errors import DataError
from kilonova.data.world.colours import COLOURS, lab
from kilonova.data.world.render import SEMANTIC_CLASSES, render
from kilonova.data.world.sampling import TASKS, SceneConfig, sample_scene
from kilonova.data.world.scene import BACKGROUNDS, COLOURED_BACKGROUNDS, Background, Pose, Scene, SceneObject, SceneText

MIXED = [sample_scene((5, i), SceneConfig(task=task, overlap=True)) for i, task in enumerate([*TASKS, "free", "free"])]


@pytest.mark.parametrize("scene", MIXED, ids=lambda scene: scene.task)
def test_masks_part_the_picture_and_agree_with_alpha(scene: Scene) -> None:
    rendered = render(scene, 96, background="transparent")
    parts = np.concatenate([rendered.masks, rendered.text_mask[None]])
    assert parts.sum(0).max() <= 1
    np.testing.assert_array_equal(parts.any(0), rendered.foreground)
    np.testing.assert_array_equal(rendered.image[..., 3] >= 128, rendered.foreground)
    assert rendered.masks.any((1, 2)).all()
    for thing, mask in zip(scene.objects, rendered.masks, strict=True):
        assert {SEMANTIC_CLASSES[label] for label in np.unique(rendered.semantic[mask])} == {thing.kind}
    assert not rendered.semantic[~rendered.foreground].any()


@pytest.mark.parametrize("scene", MIXED, ids=lambda scene: scene.task)
def test_masks_are_the_same_on_a_background(scene: Scene) -> None:
    rendered, cut_out = render(scene, 96), render(scene, 96, background="transparent")
    np.testing.assert_array_equal(rendered.masks, cut_out.masks)
    assert (rendered.image[..., 3] == 255).all()
    # Only on the nearest thing no shadow can fall.
    front = max(range(len(scene.objects)), key=lambda index: scene.objects[index].depth)
    inner = (cut_out.image[..., 3] == 255) & rendered.masks[front]
    assert inner.any()
    np.testing.assert_allclose(rendered.image[inner].astype(int), cut_out.image[inner].astype(int), atol=1)


@pytest.mark.parametrize("size", [(128, 128), (192, 96), (96, 160), (64, 64), (33, 70), 40, (300, 200)])
def test_any_size_keeps_everything_in_the_frame(size: int | tuple[int, int]) -> None:
    width, height = (size, size) if isinstance(size, int) else size
    for scene in MIXED[2:8]:
        rendered = render(scene, size)
        assert rendered.image.shape == (height, width, 4)
        assert rendered.image.dtype == np.uint8
        assert rendered.masks.shape == (len(scene.objects), height, width)
        assert (rendered.boxes[:, :2] >= 0).all()
        assert (rendered.boxes[:, 2:] <= (width, height)).all()
        for mask, (left, top, right, bottom) in zip(rendered.masks, rendered.boxes, strict=True):
            rows, columns = np.nonzero(mask)
            assert left - 1 <= columns.min() <= columns.max() <= right + 1
            assert top - 1 <= rows.min() <= rows.max() <= bottom + 1


def test_a_larger_picture_shows_the_same() -> None:
    for scene in MIXED[:6]:
        small, large = render(scene, 64), render(scene, 128)
        shrunk = large.image[..., :3].reshape(64, 2, 64, 2, 3).mean((1, 3))
        assert np.abs(shrunk - small.image[..., :3]).mean() < 4
        area = large.masks.reshape(-1, 64, 2, 64, 2).mean((2, 4)).sum((1, 2)), small.masks.sum((1, 2))
        np.testing.assert_allclose(*area, rtol=0.1)


def test_a_circle_has_the_area_and_centre_of_a_circle() -> None:
    circle = SceneObject("circle", "green", "plain", "large", Pose(0.4, 0.55, 0.3))
    mask = render(Scene((circle,)), 200).masks[0]
    assert mask.sum() == pytest.approx(np.pi * 60**2, rel=0.015)
    rows, columns = np.nonzero(mask)
    assert (columns.mean() + 0.5, rows.mean() + 0.5) == pytest.approx((80, 110), abs=0.3)


def test_what_is_nearer_covers_what_is_behind() -> None:
    back = SceneObject("square", "blue", "plain", "large", Pose(0.5, 0.5, 0.3), depth=0)
    front = SceneObject("circle", "red", "plain", "medium", Pose(0.1, 0.1, 0.15), depth=1, parent=0)
    covered = render(Scene((back, front)), 100)
    alone = render(Scene((back,)), 100)
    assert covered.masks[1].sum() == pytest.approx(np.pi * 15**2, rel=0.03)
    np.testing.assert_array_equal(covered.masks[0], alone.masks[0] & ~covered.masks[1])
    np.testing.assert_allclose(covered.boxes[0], (20, 20, 80, 80), atol=1e-4)
    middle = covered.image[60, 60, :3]
    assert np.linalg.norm(lab(middle) - lab(np.array(COLOURS["red"]))) < 10


def test_drawn_text_is_read_by_its_mask() -> None:
    words = {word: render(Scene((), text=SceneText(word, "red", "top")), (160, 120)).text_mask for word in ("HI", "HO")}
    for mask in words.values():
        assert mask[:60].sum() > 200
        assert not mask[60:].any()
        columns = np.nonzero(mask.any(0))[0]
        assert (columns.min() + columns.max() + 1) / 2 == pytest.approx(80, abs=3)
    assert (words["HI"] != words["HO"]).sum() > 50


@pytest.mark.parametrize("kind", BACKGROUNDS)
def test_backgrounds_are_drawn_with_their_parts(kind: str) -> None:
    colour = "light blue" if kind in COLOURED_BACKGROUNDS else None
    rendered = render(Scene((), Background(kind, colour)), (96, 64))
    assert not rendered.foreground.any()
    found = {SEMANTIC_CLASSES[label] for label in np.unique(rendered.semantic)}
    parts = {
        "meadow": {"sky", "hill", "grass"}, "beach": {"sky", "sea", "sand"}, "snow": {"sky", "hill", "snow"},
        "sunset": {"sky", "hill"}, "night": {"sky", "hill"}, "room": {"wall", "floor"},
    }  # fmt: skip
    assert found == parts.get(kind, {"background"})


def test_pixels_are_the_same_in_another_process() -> None:
    code = (
        "import hashlib\nfrom kilonova.data.world.render import render\n"
        "from kilonova.data.world.sampling import sample_scene\n"
        "images = b''.join(render(sample_scene((2, i)), 64).image.tobytes() for i in range(6))\n"
        "print(hashlib.sha256(images).hexdigest())"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    here = b"".join(render(sample_scene((2, i)), 64).image.tobytes() for i in range(6))
    assert other == hashlib.sha256(here).hexdigest()


def test_bad_requests_name_the_field() -> None:
    with pytest.raises(DataError, match="size is 4x40"):
        render(Scene(()), (4, 40))
    with pytest.raises(DataError, match="background is 'none'"):
        render(Scene(()), 32, background="none")  # type: ignore[arg-type]
