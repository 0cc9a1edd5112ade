"""The loop from noise to a picture against the same written out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.tiny_canvas import write_tiny_canvas

from kilonova.core.errors import ConfigError
from kilonova.models.components import load_folder
from kilonova.models.condition import Condition, ControlType
from kilonova.models.text_encoder.tokenized import TransformerTextEncoder
from kilonova.studio.drawing import Drawing, to_condition
from kilonova.studio.flow_painter import FlowPainter, GuidedVelocity
from kilonova.studio.guidance import Guidance
from kilonova.studio.prompts import CachedTexts, with_style
from kilonova.studio.settings import SamplingSettings
from kilonova.studio.tasks import Control


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_canvas(tmp_path_factory.mktemp("canvas") / "model", few_step=True)


@pytest.fixture(scope="module")
def parts(folder: Path) -> dict[str, Any]:
    return load_folder(folder)


def drawing(**options: object) -> Drawing:
    generator = np.random.default_rng(0)
    control = Control(picture=generator.integers(0, 256, (64, 64, 3)).astype(np.uint8), type=ControlType.SEGMENTATION)
    options = {"text": "a red apple", "negative_text": "a green leaf on a table", "control": control, **options}
    return Drawing(size=(64, 64), **options)  # type: ignore[arg-type]


@torch.inference_mode()
def plain_velocity(parts: dict[str, Any], condition: Condition | None, text: str, z: torch.Tensor, t: float, d: float):
    """One branch, one sample."""
    states = TransformerTextEncoder(parts["text_encoder"], parts["tokenizer"]).encode([text])
    time, size = torch.tensor([t]), torch.tensor([d])
    return parts["transformer"](z, time, states.states, states.mask, condition, size)


@torch.inference_mode()
def test_a_picture_is_what_the_plain_loop_gives(parts: dict[str, Any]) -> None:
    scheduler = {**parts["scheduler"], "guidance_start": 0.3, "guidance_end": 0.8}
    settings = SamplingSettings.from_dict(scheduler, "test")
    painter = FlowPainter(
        parts["transformer"],
        TransformerTextEncoder(parts["text_encoder"], parts["tokenizer"]),
        parts["vae"],
        settings,
    )
    found = painter.paint(drawing(), [5, 9], 3.0, 4)
    condition = to_condition(drawing(), parts["vae"])
    assert condition is not None
    for picture, seed in zip(found, (5, 9), strict=True):
        z = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(seed))
        for step in range(4):
            t = 1 - step / 4
            velocity = plain_velocity(parts, condition, "a red apple", z, t, 0.25)
            if 0.3 <= t <= 0.8:
                other = plain_velocity(parts, condition, "a green leaf on a table", z, t, 0.25)
                velocity = other + 3 * (velocity - other)
            z = z - velocity / 4
        rgba = (parts["vae"].decode_premultiplied(z)[0].double() + 1) / 2
        alpha = rgba[3].clamp(0, 1)
        expected = (torch.minimum(rgba[:3].clamp(0, 1), alpha) + 1 - alpha) * 255
        assert np.abs(picture - expected.permute(1, 2, 0).numpy()).max() <= 1


@torch.inference_mode()
def test_both_answers_see_the_condition_and_an_empty_text_has_no_tokens(parts: dict[str, Any]) -> None:
    texts = CachedTexts(TransformerTextEncoder(parts["text_encoder"], parts["tokenizer"]))
    assert texts("").states.shape[1] == 0
    assert texts("a red apple") is texts("a red apple")
    condition = to_condition(drawing(), parts["vae"])
    velocity = GuidedVelocity(
        parts["transformer"], texts("a red apple"), texts(""), condition, Guidance(cfg_scale=4.0), few_step=True
    )
    z = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    found = velocity(z, 0.75, 0.5)
    for row in range(3):
        one = z[row : row + 1]
        yes, no = (plain_velocity(parts, condition, text, one, 0.75, 0.25) for text in ("a red apple", ""))
        torch.testing.assert_close(found[row : row + 1], no + 4 * (yes - no), rtol=1e-4, atol=1e-4)
    without = plain_velocity(parts, None, "", z[:1], 0.75, 0.25)
    assert not torch.allclose(without, plain_velocity(parts, condition, "", z[:1], 0.75, 0.25), atol=1e-3)


def test_conditions_are_those_of_training(parts: dict[str, Any]) -> None:
    """The same function that prepares training's examples must give the same tensors."""
    from kilonova.data.pictures.examples import Example
    from kilonova.data.pictures.masks import random_mask
    from kilonova.train.pictures.conditions import collate, prepare

    generator = np.random.default_rng(1)
    picture = generator.integers(0, 256, (64, 64, 4)).astype(np.uint8)
    picture[..., 3] = 255
    reference = picture[::-1].copy()
    mask = random_mask(64, 64, generator)
    colors = np.array([(255, 0, 0), (0, 128, 255)], np.uint8)
    example = Example(
        picture=picture,
        caption="",
        mask=mask,
        control=picture[..., :3],
        control_type="SEGMENTATION",
        control_strength=0.5,
        references=(reference,),
        similarity=0.7,
        palette=colors,
    )
    given = collate([prepare(example)])
    with torch.inference_mode():
        expected = given.condition(parts["vae"].encode(given.pictures))
        found = to_condition(
            drawing(
                control=Control(picture=picture[..., :3], type=ControlType.SEGMENTATION, strength=0.5),
                references=(reference,),
                similarity=0.7,
                colors=tuple(map(tuple, colors.tolist())),
                source=picture[..., :3],
                mask=mask,
            ),
            parts["vae"],
        )
    assert expected is not None
    assert found is not None
    for name, tensor in vars(expected).items():
        torch.testing.assert_close(getattr(found, name), tensor, rtol=1e-4, atol=1e-5)


def test_styles_are_words_after_or_around_the_prompt() -> None:
    styles = {"DESIGN_SKETCH": "outlined", "PHOTOREALISM": "photo of {text}"}
    assert with_style("a cat", None, styles) == "a cat"
    assert with_style("a cat", "DESIGN_SKETCH", styles) == "a cat, outlined"
    assert with_style("a cat", "PHOTOREALISM", styles) == "photo of a cat"
    assert with_style("a cat", "MIDCENTURY_RETRO", styles) == "a cat, midcentury retro"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"sizes": [[128, 100]]}, "multiples of 16"),
        ({"base_tokens": 0}, "base_tokens"),
        ({"num_inference_steps": {"standard": 0}}, "at least 1"),
        ({"sampler": "heunn"}, "sampler"),
        ({"guidance_begin": 0.1}, "guidance"),
    ],
)
def test_settings_that_make_no_sense_are_named(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SamplingSettings.from_dict({"_class_name": "RectifiedFlow", "base_tokens": 256, **wrong}, "scheduler")


def test_parts_that_do_not_fit_are_refused(parts: dict[str, Any], tmp_path: Path) -> None:
    texts = TransformerTextEncoder(parts["text_encoder"], parts["tokenizer"])
    plain = load_folder(write_tiny_canvas(tmp_path / "model"))
    with pytest.raises(ConfigError, match="takes no step sizes"):
        FlowPainter(plain["transformer"], texts, parts["vae"], SamplingSettings.from_dict(parts["scheduler"], "test"))
