"""Opening a folder of a picture model, whoever trained it."""

from __future__ import annotations

from pathlib import Path

import torch

from kilonova.models.components import INDEX_FILE, is_own_folder
from kilonova.models.shards import read_json
from kilonova.studio.canvas import Canvas, load_segmenter
from kilonova.studio.diffusers.painter import DiffusersPainter


def load_canvas(folder: str | Path, device: str | torch.device = "cpu") -> Canvas:
    """The model in `folder`, which `model_index.json` says is our own or one of diffusers (SDXL, SD3, FLUX, Sana).

    A folder `segmenter` in it is its segmenter, either way.

    Raises CheckpointError or ConfigError as `Canvas.load` and `DiffusersPainter.load` do.
    """
    folder = Path(folder)
    if not is_own_folder(read_json(folder / INDEX_FILE)):
        return Canvas(DiffusersPainter.load(folder, device), load_segmenter(folder, device))
    return Canvas.load(folder, device)
