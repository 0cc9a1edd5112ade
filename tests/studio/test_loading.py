from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.tiny_canvas import write_tiny_canvas

from kilonova.core.errors import CheckpointError, ConfigError
from kilonova.studio.loading import load_canvas
from kilonova.studio.tasks import ImageRequest, TextToImage


def test_a_folder_of_our_own_is_opened(tmp_path: Path) -> None:
    canvas = load_canvas(write_tiny_canvas(tmp_path / "canvas"))
    request = ImageRequest(task=TextToImage(text="a red apple"), width=40, height=30, num_inference_steps=1)
    assert canvas.generate(request).images[0].shape == (30, 40, 3)


def test_a_folder_of_nobody_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="model_index"):
        load_canvas(tmp_path)
    index = {"_class_name": "StableDiffusionPipeline", "vae": ["diffusers", "AutoencoderKL"]}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ConfigError, match="_class_name: 'StableDiffusionPipeline' is not known"):
        load_canvas(tmp_path)
