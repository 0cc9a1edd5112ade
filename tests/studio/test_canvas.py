"""Every task of Canvas on a tiny random model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.tiny_canvas import COLOURS, ColourSegmenter, write_tiny_canvas

from kilonova.core.errors import Cancelled, CheckpointError, InvalidRequest
from kilonova.models.condition import ControlType
from kilonova.studio.canvas import Canvas
from kilonova.studio.tasks import (
    BackgroundRemoval,
    ColorGuidedGeneration,
    Control,
    GarmentMask,
    ImageRequest,
    ImageTask,
    ImageVariation,
    Inpainting,
    Outpainting,
    PromptMask,
    TextToImage,
    VirtualTryOn,
)


@pytest.fixture(scope="module")
def canvas(tmp_path_factory: pytest.TempPathFactory) -> Canvas:
    canvas = Canvas.load(write_tiny_canvas(tmp_path_factory.mktemp("canvas") / "model"))
    canvas.segmenter = ColourSegmenter()
    return canvas


def picture(width: int = 90, height: int = 70) -> np.ndarray:
    """Noise, with a red square on white in the middle."""
    image = np.random.default_rng(0).integers(90, 160, (height, width, 3)).astype(np.uint8)
    image[20:60, 20:60] = 255
    image[30:50, 30:50] = COLOURS["red"]
    return image


def draw(canvas: Canvas, task: ImageTask, **options: object) -> list[np.ndarray]:
    return list(canvas.generate(ImageRequest(task=task, **options)).images)  # type: ignore[arg-type]


def test_sizes_are_those_asked_for(canvas: Canvas) -> None:
    for width, height in ((64, 64), (320, 320), (321, 1280), (1280, 321), (17, 33), (100, 64)):
        result = canvas.generate(
            ImageRequest(task=TextToImage(text="a red apple"), width=width, height=height, num_inference_steps=1)
        )
        assert [image.shape for image in result.images] == [(height, width, 3)]
        assert result.native_size in canvas.settings.sizes
    assert result.native_size == (80, 48)
    assert draw(canvas, TextToImage(text="a red apple"))[0].shape == (64, 64, 3)


def test_a_seed_gives_one_picture_whatever_is_beside_it(canvas: Canvas) -> None:
    task = TextToImage(text="a red apple")
    alone = [draw(canvas, task, seed=seed)[0] for seed in (5, 6, 7)]
    together = draw(canvas, task, seed=5, num_images=3)
    assert all(np.array_equal(left, right) for left, right in zip(alone, together, strict=True))
    assert not np.array_equal(alone[0], alone[1])


def test_words_of_every_kind_change_the_picture(canvas: Canvas) -> None:
    tasks = [
        TextToImage(text="a red apple"),
        TextToImage(text="a blue ball"),
        TextToImage(text="a red apple", negative_text="green"),
        TextToImage(text="a red apple", style="DESIGN_SKETCH"),
        TextToImage(text="a red apple", style="PHOTOREALISM"),
        TextToImage(text="a red apple", style="MAXIMALISM"),
    ]
    pictures = [draw(canvas, task)[0] for task in tasks]
    assert len({image.tobytes() for image in pictures}) == len(tasks)
    photo = draw(canvas, TextToImage(text="photo of a red apple"))[0]
    assert np.array_equal(pictures[4], photo)


def test_conditions_change_the_picture(canvas: Canvas) -> None:
    red, blue = picture(), np.full((50, 50, 3), COLOURS["blue"], np.uint8)
    tasks = [
        TextToImage(text="it"),
        TextToImage(text="it", control=Control(picture=red)),
        TextToImage(text="it", control=Control(picture=red, strength=1.0)),
        TextToImage(text="it", control=Control(picture=red, type=ControlType.SEGMENTATION)),
        ColorGuidedGeneration(text="it", colors=((255, 0, 0),)),
        ColorGuidedGeneration(text="it", colors=((255, 0, 0), (0, 0, 255))),
        ColorGuidedGeneration(text="it", colors=((255, 0, 0),), reference=red),
        ImageVariation(images=(red,), text="it"),
        ImageVariation(images=(red,), text="it", similarity=0.2),
        ImageVariation(images=(red, blue), text="it"),
    ]
    pictures = [draw(canvas, task, width=96, height=64)[0] for task in tasks]
    assert len({image.tobytes() for image in pictures}) == len(tasks)
    unheeded = TextToImage(text="it", control=Control(picture=red, strength=0.0))
    assert np.array_equal(draw(canvas, unheeded, width=96, height=64)[0], pictures[0])


@pytest.mark.parametrize("size", [(90, 70), (333, 61), (64, 64), (40, 157)])
def test_what_a_mask_leaves_out_comes_back_bit_by_bit(canvas: Canvas, size: tuple[int, int]) -> None:
    image = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)
    small, large = np.zeros(image.shape[:2], bool), np.ones(image.shape[:2], bool)
    small[5:20, 9:30] = True
    large[10:-10, 10:-10] = False
    for task, mask in (
        (Inpainting(image=image, mask=small, text="a red apple"), small),
        (Inpainting(image=image, mask=small), small),
        (Inpainting(image=image, mask=large, text="a red apple"), large),
        (Outpainting(image=image, mask=large, mode="PRECISE", text="a red apple"), large),
        (VirtualTryOn(source=image, reference=picture(), mask=small), small),
        (VirtualTryOn(source=image, reference=picture(), mask=small, merge_style="SEAMLESS"), small),
        (VirtualTryOn(source=image, reference=picture(), mask=small, merge_style="DETAILED"), small),
    ):
        (found,) = draw(canvas, task, width=512, height=512)
        assert found.shape == image.shape
        assert np.array_equal(found[~mask], image[~mask])
        assert (found[mask] != image[mask]).any(-1).mean() > 0.5


def test_outpainting_may_blend_near_the_border_alone(canvas: Canvas) -> None:
    image = picture(200, 160)
    mask = np.ones(image.shape[:2], bool)
    mask[40:120, 50:150] = False
    (found,) = draw(canvas, Outpainting(image=image, mask=mask, text="a green leaf"))
    changed = (found != image).any(-1)
    assert changed[~mask].any()
    assert not changed[50:110, 60:140].any()


def test_a_mask_in_words_finds_the_thing(canvas: Canvas) -> None:
    image = picture()
    (found,) = draw(canvas, Inpainting(image=image, mask="the red square", text="a blue ball"))
    changed = (found != image).any(-1)
    assert changed[30:50, 30:50].mean() > 0.9
    assert not changed[:25].any()
    assert not changed[:, 56:].any()
    (surrounded,) = draw(canvas, Outpainting(image=image, mask="the red square", mode="PRECISE", text="a leaf"))
    assert np.array_equal(surrounded[30:50, 30:50], image[30:50, 30:50])
    with pytest.raises(InvalidRequest, match="nothing in the picture was found for 'the blue square'"):
        draw(canvas, Inpainting(image=image, mask="the blue square"))


def test_a_background_becomes_transparent(canvas: Canvas) -> None:
    image = np.full((31, 45, 3), 255, np.uint8)
    image[5:20, 10:30] = COLOURS["black"]
    (found,) = draw(canvas, BackgroundRemoval(image=image))
    assert np.array_equal(found[..., :3], image)
    assert np.array_equal(found[..., 3], 255 - image[..., 0])


def test_try_on_masks(canvas: Canvas, monkeypatch: pytest.MonkeyPatch) -> None:
    class Doll:
        """A shirt of the shape of an L, with a hand in it, and a face in the corner."""

        def refer(self, image: np.ndarray, phrase: str) -> np.ndarray:
            found = np.zeros(image.shape[:2], np.float32)
            if phrase == "the shirt":
                found[20:40, 20:26] = found[34:40, 20:50] = 1
            if phrase == "the hands":
                found[36:38, 44:48] = 1
            if phrase == "the face":
                found[18:24, 40:50] = 1
            return found

    monkeypatch.setattr(canvas, "segmenter", Doll())
    image, reference = picture(120, 100), picture(40, 40)

    def mask(**options: object) -> np.ndarray:
        task = VirtualTryOn(source=image, reference=reference, return_mask=True, **options)  # type: ignore[arg-type]
        result = canvas.generate(ImageRequest(task=task, num_inference_steps=1))
        assert result.mask is not None
        assert np.array_equal(result.images[0][~result.mask], image[~result.mask])
        return result.mask

    contour = mask(mask=GarmentMask(garment="UPPER_BODY", shape="CONTOUR"))
    box = mask(mask=GarmentMask(garment="UPPER_BODY"))
    kept = mask(mask=GarmentMask(garment="UPPER_BODY"), preserve=frozenset({"hands"}))
    assert contour[22, 22]
    assert not contour[22, 45]
    assert box[28, 45]
    assert not box[22, 45]
    assert np.array_equal(box & ~kept, np.pad(np.ones((2, 4), bool), ((36, 62), (44, 72))))
    assert np.array_equal(contour, mask(mask=PromptMask(prompt="the shirt")))
    assert mask(mask=PromptMask(prompt="the shirt", shape="BOUNDING_BOX"))[22, 45]
    plain = VirtualTryOn(source=image, reference=reference, mask=contour)
    assert canvas.generate(ImageRequest(task=plain)).mask is None


def test_ways_of_merging_and_references_differ(canvas: Canvas) -> None:
    mask = np.zeros((70, 90), bool)
    mask[25:45, 25:45] = True
    found = [
        draw(canvas, VirtualTryOn(source=picture(), reference=reference, mask=mask, merge_style=style))[0]
        for style, reference in (
            ("BALANCED", picture(40, 40)),
            ("SEAMLESS", picture(40, 40)),
            ("DETAILED", picture(40, 40)),
            ("BALANCED", np.zeros((9, 9, 3), np.uint8)),
        )
    ]
    assert len({image.tobytes() for image in found}) == 4


def test_progress_is_told_and_ends_the_work(canvas: Canvas) -> None:
    told: list[tuple[int, int]] = []

    def stop(done: int, total: int) -> bool:
        told.append((done, total))
        return done < 3

    request = ImageRequest(task=TextToImage(text="a red apple"), num_images=2, quality="premium")
    with pytest.raises(Cancelled):
        canvas.generate(request, stop)
    assert told == [(1, 8), (2, 8), (3, 8)]
    assert canvas.generate(request, lambda done, total: None).num_inference_steps == 4


def test_a_few_step_model_is_told_its_steps(tmp_path: Path) -> None:
    canvas = Canvas.load(write_tiny_canvas(tmp_path / "model", few_step=True))
    task = TextToImage(text="a red apple")
    one, two = (draw(canvas, task, num_inference_steps=steps)[0] for steps in (1, 2))
    assert not np.array_equal(one, two)


def test_the_segmenter_of_the_folder_is_used(tmp_path: Path) -> None:
    canvas = Canvas.load(write_tiny_canvas(tmp_path / "model", segmenter=True))
    (found,) = draw(canvas, BackgroundRemoval(image=picture()))
    assert canvas.segmenter is not None
    assert np.array_equal(found[..., 3], np.rint(canvas.segmenter.foreground(picture()) * 255).astype(np.uint8))


def test_what_cannot_be_done_is_refused(canvas: Canvas, tmp_path: Path) -> None:
    without = Canvas.load(write_tiny_canvas(tmp_path / "model"))
    image = picture()
    for task in (BackgroundRemoval(image=image), Inpainting(image=image, mask="the apple")):
        with pytest.raises(InvalidRequest, match="no segmenter"):
            draw(without, task)
    with pytest.raises(InvalidRequest, match="selects no pixel"):
        draw(canvas, Inpainting(image=image, mask=np.zeros(image.shape[:2], bool)))
    with pytest.raises(InvalidRequest, match=r"mask: bool \[3, 4\] is not a bool mask \[70, 90\]"):
        Inpainting(image=image, mask=np.ones((3, 4), bool))
    with pytest.raises(InvalidRequest, match="uint8 picture"):
        BackgroundRemoval(image=image[..., 0])
    with pytest.raises(CheckpointError, match=r"model_index\.json"):
        Canvas.load(tmp_path)
