"""Training of a text-to-image model in the latents of an autoencoder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kilonova.data.pictures.batches import PictureBatch
from kilonova.models.components import Component, save_folder
from kilonova.models.sizing import BackboneConfig, forward_flops
from kilonova.models.text_encoder.model import TextTransformer
from kilonova.models.text_encoder.tokenized import TransformerTextEncoder
from kilonova.studio.flow import interpolate, resolution_shift, sample_timesteps, to_velocity
from kilonova.studio.samplers import initial_noise
from kilonova.train.averaging import WeightAverage
from kilonova.train.objective import Loss
from kilonova.train.pictures.context import PictureContext
from kilonova.train.pictures.parts import starting_parts

_SPATIAL_FACTOR = 8
# For the count of operations alone.
_TYPICAL_TEXT_TOKENS = 16
PIPELINE_CLASS = "KilonovaCanvasPipeline"


@dataclass(frozen=True)
class FlowBatch:
    """Pictures `[B, 4, H, W]` with what a step draws for each: a caption or none, a time, and the seed of its noise."""

    images: Tensor
    captions: list[str]
    timesteps: Tensor
    noise_seeds: list[int]


class FlowModel(nn.Module):
    """What a run trains together: the backbone and its text encoder, and beside them their average."""

    def __init__(self, transformer: nn.Module, text_encoder: TextTransformer, ema_decay: float) -> None:
        super().__init__()
        self.transformer = transformer
        self.text_encoder = text_encoder
        self.average = WeightAverage(self, ema_decay)


class FlowObjective:
    """The squared error of the velocity from data to noise, a mean over a picture's latents; the items are pictures.

    What is evaluated and exported is the average of the weights.
    """

    def __init__(self, context: PictureContext) -> None:
        recipe, section = context.recipe, context.recipe.flow
        parts = starting_parts(context.recipe)
        self._context, self._section = context, section
        self._autoencoder = parts.autoencoder.requires_grad_(False).to(context.device)
        self._model = FlowModel(parts.transformer, parts.text_encoder, section.ema_decay).to(context.device)
        self._prediction = parts.transformer.config.prediction
        self._tokenizer = parts.tokenizer
        self._texts = TransformerTextEncoder(self._model.text_encoder, parts.tokenizer)
        self._transformer = torch.compile(self._model.transformer) if recipe.compile else self._model.transformer
        self.trained: nn.Module = self._model
        self._pictures = context.batches()
        width, height = (side // _SPATIAL_FACTOR for side in recipe.pictures.sizes[0])
        self._base_positions = width * height
        self.tokens_per_step = recipe.batch_size * self._base_positions
        config: BackboneConfig = parts.transformer.config
        self.flops_per_token = 3 * forward_flops(config, height, width, _TYPICAL_TEXT_TOKENS) / self._base_positions
        self._validation = {
            name: [self._fixed_batch(batch) for batch in batches]
            for name, batches in context.validation_batches().items()
        }

    def micro_batches(self, step: int) -> list[FlowBatch]:
        batches = self._pictures(step)
        count = sum(len(batch.images) for batch in batches)
        section = self._section
        generator = _generator(self._context.recipe.seed, step, self._context.rank)
        shift = resolution_shift(batches[0].images[0, 0].numel() // _SPATIAL_FACTOR**2, self._base_positions)
        timesteps = sample_timesteps(
            count, generator, mean=section.timestep_mean, std=section.timestep_std, shift=section.timestep_shift * shift
        )
        dropped = torch.rand(count, generator=generator) < section.text_dropout
        seeds = torch.randint(2**62, (count,), generator=generator).tolist()
        result = []
        first = 0
        for batch in batches:
            part = slice(first, first + len(batch.images))
            captions = ["" if drop else text for text, drop in zip(batch.captions, dropped[part], strict=True)]
            result.append(FlowBatch(batch.images, captions, timesteps[part], seeds[part]))
            first = part.stop
        return result

    def num_items(self, batch: FlowBatch) -> int:
        return len(batch.images)

    def loss(self, batch: FlowBatch) -> Loss:
        return Loss(self._errors(batch).sum())

    def step_done(self) -> None:
        self._model.average.update(self._model)

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """The mean error on each validation source, for times spread evenly and noise that is always the same."""
        with self._model.average.applied(self._model):
            return {
                name: float(torch.cat([self._errors(batch) for batch in batches]).mean())
                for name, batches in self._validation.items()
            }

    def export(self, directory: Path) -> None:
        """Write a whole folder: transformer, text encoder and tokenizer, autoencoder, and how to sample."""
        scheduler = {"_class_name": "RectifiedFlow", "base_tokens": self._base_positions}
        with self._model.average.applied(self._model):
            components: dict[str, Component] = {
                "transformer": self._model.transformer,
                "text_encoder": self._model.text_encoder,
                "tokenizer": self._tokenizer,
                "vae": self._autoencoder,
                "scheduler": scheduler,
            }
            dtype = getattr(torch, self._context.recipe.save_dtype)
            save_folder(components, directory, PIPELINE_CLASS, dtype=dtype)

    def data_record(self) -> dict[str, Any]:
        return self._context.pictures_record()

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass

    def _errors(self, batch: FlowBatch) -> Tensor:
        """The error of each picture, float32 `[B]`."""
        device = self._context.device
        with self._context.autocast():
            with torch.no_grad():
                latents = self._autoencoder.encode(batch.images.to(device))
            noise = _noise(latents.shape[1:], batch.noise_seeds).to(device)
            timesteps, latents = batch.timesteps.to(device), latents.float()
            noisy = interpolate(latents, noise, timesteps)
            text = self._texts.encode(batch.captions)
            prediction = self._transformer(noisy, timesteps, text.states, text.mask).float()
        velocity = to_velocity(prediction, self._prediction, noisy, timesteps)
        return (velocity - (noise - latents)).square().mean((1, 2, 3))

    def _fixed_batch(self, batch: PictureBatch) -> FlowBatch:
        count = len(batch.images)
        timesteps = (torch.arange(count) + 0.5) / count
        return FlowBatch(batch.images, batch.captions, timesteps, list(range(count)))


def _generator(*key: int) -> torch.Generator:
    """A generator of its own for each key."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0]))


def _noise(shape: torch.Size, seeds: list[int]) -> Tensor:
    return initial_noise(shape, [torch.Generator().manual_seed(seed) for seed in seeds])
