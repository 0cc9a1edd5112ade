from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from kilonova.core.errors import Cancelled, CheckpointError, ConfigError, InvalidRequest
from kilonova.models.condition import ControlType
from kilonova.studio.canvas import Canvas
from kilonova.studio.diffusers import folder as folder_module
from kilonova.studio.diffusers.painter import DiffusersPainter
from kilonova.studio.diffusers.sampling import buckets
from kilonova.studio.loading import load_canvas
from kilonova.studio.tasks import (
    ColorGuidedGeneration,
    Control,
    ImageRequest,
    ImageVariation,
    Inpainting,
    Outpainting,
    TextToImage,
    VirtualTryOn,
)

# With the class of their ControlNets.
FAMILIES = {
    "SDXL": "ControlNetModel",
    "SD3": "SD3ControlNetModel",
    "FLUX": "FluxControlNetModel",
    "Sana": "SanaControlNetModel",
}
STEPS = 3
PICTURE = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
MASK = np.zeros((60, 90), bool)
MASK[10:40, 20:70] = True


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def canvas(family, diffusers_folder):
    painter = DiffusersPainter.load(diffusers_folder(family))
    # FLUX is always of 1024 pixels.
    painter.settings = replace(painter.settings, sizes=buckets(64, 32))
    return Canvas(painter)


def request(task, **changes):
    return ImageRequest(task=task, **{"num_inference_steps": STEPS, "cfg_scale": 3.0, "seed": 7} | changes)


def difference(image, other):
    return np.abs(image.astype(int) - other).mean()


def test_a_picture_is_the_pipelines_own_and_does_not_depend_on_those_beside_it(canvas, family, diffusers_folder):
    import diffusers

    task = TextToImage(text="a red cat", negative_text="the dog")
    done = []
    both = canvas.generate(request(task, width=50, height=40, num_images=2), lambda *step: done.append(step))
    assert all(image.shape == (40, 50, 3) and image.dtype == np.uint8 for image in both.images)
    assert done == [(step, 2 * STEPS) for step in range(1, 2 * STEPS + 1)]
    (again,) = canvas.generate(request(task, width=50, height=40, seed=8)).images
    np.testing.assert_array_equal(again, both.images[1])
    assert difference(both.images[0], again) > 1
    alone = canvas.generate(request(task, width=96, height=32, seed=8))
    pipeline = diffusers.DiffusionPipeline.from_pretrained(diffusers_folder(family))
    pipeline.set_progress_bar_config(disable=True)
    guidance = {"true_cfg_scale": 3.0, "guidance_scale": 1.0} if family == "FLUX" else {"guidance_scale": 3.0}
    own = {"use_resolution_binning": False} if family == "Sana" else {}
    (expected,) = pipeline(
        prompt=task.text,
        negative_prompt=task.negative_text,
        width=alone.native_size[0],
        height=alone.native_size[1],
        num_inference_steps=STEPS,
        generator=torch.Generator().manual_seed(8),
        **guidance,
        **own,
    ).images
    assert alone.native_size == (96, 32)
    np.testing.assert_array_equal(alone.images[0], np.array(expected))


@pytest.mark.parametrize("kind", [Inpainting, Outpainting])
def test_what_is_not_masked_stays_bit_for_bit(canvas, kind):
    precise = {"mode": "PRECISE"} if kind is Outpainting else {}
    (image,) = canvas.generate(request(kind(image=PICTURE, mask=MASK, text="a tree", **precise))).images
    np.testing.assert_array_equal(image[~MASK], PICTURE[~MASK])
    assert difference(image[MASK], PICTURE[MASK]) > 5


def test_variations_start_from_their_own_pictures_as_similar_as_asked(canvas):
    def vary(similarity):
        task = ImageVariation(images=(PICTURE, 255 - PICTURE), similarity=similarity)
        steps = []
        found = canvas.generate(request(task, width=90, height=60, num_images=2), lambda *step: steps.append(step))
        return found, len(steps)

    (near, few), (far, many) = vary(0.9), vary(0.2)
    # Of a share of the steps, SDXL takes the whole ones and the others one more.
    assert few == 2
    assert many in (2 * STEPS - 2, 2 * STEPS)
    assert near.images[0].shape == PICTURE.shape
    assert difference(near.images[0], near.images[1]) > 1
    assert difference(near.images[0], far.images[0]) > 0.1


def test_colours_and_a_reference_change_the_picture(canvas):
    def draw(colors, reference=None):
        task = ColorGuidedGeneration(text="a house", colors=colors, reference=reference)
        return canvas.generate(request(task, width=64, height=64)).images[0]

    red = draw(((255, 0, 0),))
    assert difference(red, draw(((0, 60, 255),))) > 0
    assert difference(red, draw(((255, 0, 0),), PICTURE)) > 0


def test_a_caller_can_stop_it(canvas):
    done = []

    def on_step(step, total):
        done.append(step)
        return step < 2

    with pytest.raises(Cancelled):
        canvas.generate(request(TextToImage(text="a cat"), width=64, height=64), on_step)
    assert done == [1, 2]


def test_what_a_model_cannot_do_is_said(canvas, family):
    with pytest.raises(InvalidRequest, match="segmenter"):
        canvas.generate(request(Inpainting(image=PICTURE, mask="the cat")))
    with pytest.raises(InvalidRequest, match=f"{family} models of diffusers do not draw a part after a reference"):
        canvas.generate(request(VirtualTryOn(source=PICTURE, reference=PICTURE, mask=MASK)))
    control = Control(picture=PICTURE, type=ControlType.SEGMENTATION)
    with pytest.raises(InvalidRequest, match=f"{family} model has no controlnet_segmentation"):
        canvas.generate(request(TextToImage(text="a cat", control=control)))


def test_a_controlnet_beside_the_model_is_followed_as_far_as_its_strength(family, diffusers_folder, tmp_path):
    import diffusers

    folder = shutil.copytree(diffusers_folder(family), tmp_path / "model")
    if family == "SDXL":
        unet = diffusers.UNet2DConditionModel.from_pretrained(folder / "unet")
        controlnet = diffusers.ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(4, 8))
    else:
        config = json.loads((folder / "transformer" / "config.json").read_text())
        controlnet = getattr(diffusers, FAMILIES[family]).from_config(config)
    torch.manual_seed(0)
    for parameter in controlnet.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    controlnet.save_pretrained(folder / "controlnet_canny_edge")
    painter = DiffusersPainter.load(folder)
    painter.settings = replace(painter.settings, sizes=((64, 64),))
    canvas = Canvas(painter)
    square = np.zeros((64, 64, 3), np.uint8)
    square[16:48, 16:48] = 255

    def draw(picture, strength):
        task = TextToImage(text="a cat", control=Control(picture=picture, strength=strength))
        return canvas.generate(request(task, width=64, height=64)).images[0]

    moved = np.roll(square, 12, 0)
    np.testing.assert_array_equal(draw(square, 0.0), draw(moved, 0.0))
    followed = draw(square, 1.0)
    assert difference(followed, draw(moved, 1.0)) > 0.01
    np.testing.assert_array_equal(draw(square, 1.0), followed)


def test_folders_that_cannot_be_served_are_refused(diffusers_folder, tmp_path, monkeypatch):
    index = tmp_path / "other" / "model_index.json"
    index.parent.mkdir()
    for name in ("KandinskyPipeline", ["pipeline.py", "FluxPipeline"]):
        index.write_text(json.dumps({"_class_name": name, "vae": ["diffusers", "AutoencoderKL"]}))
        with pytest.raises(ConfigError, match="_class_name"):
            load_canvas(index.parent)
    pickled = shutil.copytree(diffusers_folder("Sana"), tmp_path / "pickled")
    (pickled / "transformer" / "diffusion_pytorch_model.safetensors").unlink()
    torch.save({}, pickled / "transformer" / "diffusion_pytorch_model.bin")
    with pytest.raises(CheckpointError, match="pickled"):
        load_canvas(pickled)
    monkeypatch.setattr(folder_module, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'kilonova\[diffusers\]'"):
        load_canvas(diffusers_folder("Sana"))
