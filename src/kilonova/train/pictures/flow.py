"""Training of a text-to-image model in the latents of an autoencoder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kilonova.core.errors import ConfigError
from kilonova.models.components import Component, save_folder
from kilonova.models.condition import Condition
from kilonova.models.dit.model import DiTBlock
from kilonova.models.sizing import BackboneConfig, forward_flops
from kilonova.models.text_encoder.model import TextTransformer
from kilonova.models.text_encoder.tokenized import TransformerTextEncoder
from kilonova.models.uvit.model import UViTBlock
from kilonova.studio.flow import interpolate, shortcut_target, to_velocity
from kilonova.studio.samplers import initial_noise
from kilonova.studio.settings import SamplingSettings
from kilonova.train.averaging import WeightAverage
from kilonova.train.objective import Loss
from kilonova.train.pictures.ahead import Ahead
from kilonova.train.pictures.conditions import untouched
from kilonova.train.pictures.context import PictureContext
from kilonova.train.pictures.flow_batches import FlowBatch, FlowBatches, fixed_batch
from kilonova.train.pictures.parts import starting_parts

_SPATIAL_FACTOR = 8
# For the count of operations alone.
_TYPICAL_TEXT_TOKENS = 16
# The step from which a shortcut is first made is as good as none (arXiv 2410.12557, section 3).
_SMALLEST_STEP = 1 / 128
_BLOCK_VARIANTS = 32
PIPELINE_CLASS = "KilonovaCanvasPipeline"


class FlowModel(nn.Module):
    """What a run trains together: the backbone and its text encoder, and beside them their average."""

    def __init__(self, transformer: nn.Module, text_encoder: TextTransformer, ema_decay: float) -> None:
        super().__init__()
        self.transformer = transformer
        self.text_encoder = text_encoder
        self.average = WeightAverage(self, ema_decay)


class FlowObjective:
    """The squared error of the velocity from data to noise, a mean over a picture's latents; the items are pictures.

    Of shortcuts it is the error of the mean velocity of a large step, against that of two of half of it by the average
    of the weights. What is evaluated and exported is that average.
    """

    def __init__(self, context: PictureContext) -> None:
        recipe, section = context.recipe, context.recipe.flow
        parts = starting_parts(context.recipe)
        config: BackboneConfig = parts.transformer.config
        if section.shortcut and not config.step_size_embeds:
            raise ConfigError("flow.shortcut: the backbone takes no step size; set model.config.step_size_embeds")
        self._context, self._conditional = context, section.conditions.any
        self._autoencoder = parts.autoencoder.requires_grad_(False).to(context.device)
        self._model = FlowModel(parts.transformer, parts.text_encoder, section.ema_decay).to(context.device)
        self._config = config
        self._tokenizer = parts.tokenizer
        self._texts = TransformerTextEncoder(self._model.text_encoder, parts.tokenizer)
        if recipe.compile:
            _compile_blocks(self._model.transformer)
        self.trained: nn.Module = self._model
        width, height = (side // _SPATIAL_FACTOR for side in recipe.pictures.sizes[0])
        base_positions = width * height
        self._scheduler = _scheduler_config(context, base_positions)
        batches = FlowBatches(context, base_positions, self._autoencoder)
        # A CPU that trains has no time to spare for what comes next.
        self.micro_batches: Callable[[int], list[FlowBatch]] = (
            Ahead(batches) if context.device.type == "cuda" else batches
        )
        self.tokens_per_step = recipe.batch_size * base_positions
        self.flops_per_token = 3 * forward_flops(config, height, width, _TYPICAL_TEXT_TOKENS) / base_positions
        size = recipe.micro_batch_size
        self._validation = {
            name: [fixed_batch(found[start : start + size]) for start in range(0, len(found), size)]
            for name, found in context.validation_pictures().items()
        }

    def num_items(self, batch: FlowBatch) -> int:
        return len(batch.captions)

    def loss(self, batch: FlowBatch) -> Loss:
        total = self._errors(batch).sum()
        if self._conditional:
            total = total + untouched(self._model.transformer)
        return Loss(total)

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
        with self._model.average.applied(self._model):
            components: dict[str, Component] = {
                "transformer": self._model.transformer,
                "text_encoder": self._model.text_encoder,
                "tokenizer": self._tokenizer,
                "vae": self._autoencoder,
                "scheduler": self._scheduler,
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
        device, given = self._context.device, batch.given
        with self._context.autocast(), torch.no_grad():
            pictures = given.pictures.to(device)
            latents = (pictures if given.encoded else self._autoencoder.encode(pictures)).float()
        condition = given.condition(latents)
        data = latents[given.targets.to(device)]
        noise = _noise(data.shape[1:], batch.noise_seeds).to(device)
        timesteps, step_sizes = batch.timesteps.to(device), batch.step_sizes.to(device)
        noisy = interpolate(data, noise, timesteps)
        expected = noise - data
        shortcuts = batch.step_sizes.nonzero().flatten().tolist()
        if shortcuts:
            expected[shortcuts] = self._shortcut(batch, noisy, condition, shortcuts)
        velocity = self._velocity(noisy, timesteps, batch.captions, condition, step_sizes)
        return (velocity - expected).square().mean((1, 2, 3))

    @torch.no_grad()
    def _shortcut(self, batch: FlowBatch, noisy: Tensor, condition: Condition | None, rows: list[int]) -> Tensor:
        """What the given `rows` of a batch are to learn, from the average of the weights."""
        captions = [batch.captions[row] for row in rows]
        own = None if condition is None else condition.map(lambda tensor: tensor[rows])

        def velocity(latents: Tensor, timestep: Tensor, step_size: Tensor) -> Tensor:
            asked = torch.where(step_size > _SMALLEST_STEP, step_size, 0.0)
            return self._velocity(latents, timestep, captions, own, asked)

        device = noisy.device
        with self._model.average.applied(self._model):
            timesteps, halves = batch.timesteps[rows].to(device), batch.step_sizes[rows].to(device) / 2
            return shortcut_target(velocity, noisy[rows], timesteps, halves)

    def _velocity(
        self, noisy: Tensor, timesteps: Tensor, captions: list[str], condition: Condition | None, step_sizes: Tensor
    ) -> Tensor:
        with self._context.autocast():
            text = self._texts.encode(captions)
            asked = step_sizes if self._config.step_size_embeds else None
            prediction = self._model.transformer(noisy, timesteps, text.states, text.mask, condition, asked).float()
        return to_velocity(prediction, self._config.prediction, noisy, timesteps)


def _scheduler_config(context: PictureContext, base_positions: int) -> dict[str, Any]:
    """How to sample, as `studio.settings.SamplingSettings` reads it; ConfigError for what it does not take."""
    recipe = context.recipe
    settings = {
        **recipe.flow.sampling,
        "base_tokens": base_positions,
        "sizes": [list(size) for size in dict.fromkeys(recipe.pictures.sizes)],
        "few_step": recipe.flow.shortcut > 0,
    }
    SamplingSettings.from_dict(settings, "flow.sampling")
    return {"_class_name": "RectifiedFlow", **settings}


def _compile_blocks(transformer: nn.Module) -> None:
    """Compile the blocks that repeat, once for all, as sequences are of many lengths; or else the whole network."""
    blocks: list[nn.Module] = [module for module in transformer.modules() if isinstance(module, UViTBlock | DiTBlock)]
    # With and without gradients, skips and hidden tokens, and batches of one apart.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _BLOCK_VARIANTS)
    for module in blocks or [transformer]:
        module.compile(dynamic=True)


def _noise(shape: torch.Size, seeds: list[int]) -> Tensor:
    return initial_noise(shape, [torch.Generator().manual_seed(seed) for seed in seeds])
