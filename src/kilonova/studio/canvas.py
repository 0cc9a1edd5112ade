"""Canvas: every task of pictures from one folder."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import torch

from kilonova.core.errors import CheckpointError
from kilonova.models.autoencoder.model import ImageAutoencoder
from kilonova.models.components import INDEX_FILE, load_folder
from kilonova.models.dit.model import DiT
from kilonova.models.text_encoder.model import TextTransformer
from kilonova.models.text_encoder.tokenized import TransformerTextEncoder
from kilonova.models.unet.model import UNet
from kilonova.models.uvit.model import UViT
from kilonova.studio.described import require_segmenter
from kilonova.studio.drawing import Plan
from kilonova.studio.editing import plan_inpainting, plan_outpainting
from kilonova.studio.flow_painter import FlowPainter
from kilonova.studio.generation import plan_generation
from kilonova.studio.mask_former import MaskFormer
from kilonova.studio.matting import cut_out
from kilonova.studio.painter import OnStep, Painter
from kilonova.studio.segmentation import Segmenter
from kilonova.studio.settings import SamplingSettings
from kilonova.studio.tasks import (
    BackgroundRemoval,
    ImageRequest,
    ImageResult,
    Inpainting,
    Outpainting,
    VirtualTryOn,
)
from kilonova.studio.try_on import plan_try_on
from kilonova.text.tokenizer import Tokenizer


def load_segmenter(folder: Path, device: str | torch.device = "cpu") -> Segmenter | None:
    """The segmenter in the folder `segmenter` of a model's `folder`, None without one; errors as `MaskFormer.load`."""
    place = folder / "segmenter"
    return MaskFormer.load(place, device) if (place / INDEX_FILE).is_file() else None


class Canvas:
    """A model that makes and edits pictures, for one caller at a time.

    Without a `segmenter` it knows only masks that are given as pictures, and removes no backgrounds.
    """

    def __init__(self, painter: Painter, segmenter: Segmenter | None = None) -> None:
        self._painter = painter
        self.segmenter = segmenter

    @classmethod
    def load(cls, folder: str | Path, device: str | torch.device = "cpu") -> Self:
        """The model of a diffusers-style folder, as training exports it, in float32, or bfloat16 beyond the CPU.

        A folder `segmenter` in it, which is a whole one of its own, is its segmenter.

        Raises CheckpointError or ConfigError for a folder that lacks something, or whose parts do not fit.
        """
        folder = Path(folder)
        components = load_folder(folder, torch.float32, device)
        transformer, text_encoder, autoencoder = map(components.get, ("transformer", "text_encoder", "vae"))
        tokenizer, scheduler = components.get("tokenizer"), components.get("scheduler")
        if not isinstance(transformer, UViT | DiT | UNet):
            raise CheckpointError(f"{folder}: its transformer is none of UViT, DiT, UNet")
        if not isinstance(text_encoder, TextTransformer) or not isinstance(tokenizer, Tokenizer):
            raise CheckpointError(f"{folder}: a text_encoder, a TextTransformer, and its tokenizer are expected")
        if not isinstance(autoencoder, ImageAutoencoder):
            raise CheckpointError(f"{folder}: its vae is no ImageAutoencoder")
        if not isinstance(scheduler, dict):
            raise CheckpointError(f"{folder}: a scheduler, which says how to sample, is expected")
        if torch.device(device).type != "cpu":
            transformer.bfloat16()
        settings = SamplingSettings.from_dict(scheduler, str(folder / "scheduler"))
        texts = TransformerTextEncoder(text_encoder, tokenizer)
        return cls(FlowPainter(transformer, texts, autoencoder, settings), load_segmenter(folder, device))

    @property
    def settings(self) -> SamplingSettings:
        """How the model samples, with the sizes it draws at and the styles it has words for."""
        return self._painter.settings

    def generate(self, request: ImageRequest, on_step: OnStep | None = None) -> ImageResult:
        """The pictures of `request`, and how they were made.

        `on_step(done, total)` is called after each step of the model, on this thread; if it returns False the work ends
        with Cancelled. InvalidRequest for what this model cannot do.
        """
        task = request.task
        if isinstance(task, BackgroundRemoval):
            return self._without_background(task, request)
        plan = self._plan(request)
        counts = self.settings.num_inference_steps
        steps = request.num_inference_steps or (counts.premium if request.quality == "premium" else counts.standard)
        seeds = range(request.seed, request.seed + request.num_images)
        drawn = self._painter.paint(plan.drawing, seeds, request.cfg_scale, steps, on_step)
        return ImageResult(
            images=tuple(plan.finish(picture) for picture in drawn),
            mask=plan.mask if isinstance(task, VirtualTryOn) and task.return_mask else None,
            native_size=plan.drawing.size,
            num_inference_steps=steps,
            seed=request.seed,
        )

    def _plan(self, request: ImageRequest) -> Plan:
        task = request.task
        if isinstance(task, Inpainting):
            return plan_inpainting(task, self.segmenter, self.settings)
        if isinstance(task, Outpainting):
            return plan_outpainting(task, self.segmenter, self.settings)
        if isinstance(task, VirtualTryOn):
            return plan_try_on(task, self.segmenter, self.settings)
        assert not isinstance(task, BackgroundRemoval)
        size = None if request.width is None or request.height is None else (request.width, request.height)
        return plan_generation(task, size, self.settings)

    def _without_background(self, task: BackgroundRemoval, request: ImageRequest) -> ImageResult:
        foreground = require_segmenter(self.segmenter).foreground(task.image)
        height, width = task.image.shape[:2]
        return ImageResult(
            images=(cut_out(task.image, foreground),),
            native_size=(width, height),
            num_inference_steps=0,
            seed=request.seed,
        )
