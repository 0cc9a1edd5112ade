"""Drawing with a flow: text and conditions in, pictures at the model's own size out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from kilonova.core.errors import Cancelled, ConfigError
from kilonova.models.autoencoder.model import ImageAutoencoder
from kilonova.models.condition import Condition
from kilonova.models.dit.model import DiT
from kilonova.models.text_encoder.states import TextEncoder, TextStates
from kilonova.models.unet.model import UNet
from kilonova.models.uvit.model import UViT
from kilonova.studio.drawing import Drawing, to_condition
from kilonova.studio.flow import resolution_shift, to_velocity
from kilonova.studio.guidance import Guidance
from kilonova.studio.latents import decode_on_white
from kilonova.studio.painter import OnStep
from kilonova.studio.prompts import CachedTexts, stack_texts
from kilonova.studio.samplers import SamplerName, initial_noise, sample, sampling_timesteps
from kilonova.studio.settings import SamplingSettings
from kilonova.studio.sizes import between

_SPATIAL_FACTOR = 8


class GuidedVelocity:
    """The velocity of a transformer under guidance, a `VelocityModel`.

    Both of its answers see the same `condition`, of one sample; one has read `text`, the other `negative`. With
    `few_step` the transformer is told how far each step goes.
    """

    def __init__(
        self,
        transformer: UViT | DiT | UNet,
        text: TextStates,
        negative: TextStates,
        condition: Condition | None,
        guidance: Guidance,
        *,
        few_step: bool = False,
    ) -> None:
        self._transformer = transformer
        self._texts = [text, negative]
        self._condition = condition
        self._guidance = guidance
        self._few_step = few_step

    def __call__(self, latents: Tensor, timestep: float, next_timestep: float) -> Tensor:
        guided = self._guidance.is_active(timestep)
        count = len(latents)
        states, mask = stack_texts(self._texts if guided else self._texts[:1], count)
        noisy = torch.cat((latents, latents)) if guided else latents
        times = noisy.new_full((len(noisy),), timestep)
        condition = self._condition
        if condition is not None:
            condition = condition.map(lambda part: part.expand(len(noisy), *part.shape[1:]))
        step_size = torch.full_like(times, timestep - next_timestep) if self._few_step else None
        dtype = next(self._transformer.parameters()).dtype
        answer = self._transformer(
            noisy.to(dtype),
            times,
            states.to(dtype),
            mask,
            None if condition is None else condition.to(dtype=dtype),
            step_size,
        )
        velocity = to_velocity(answer.float(), self._transformer.config.prediction, noisy, times)
        if not guided:
            return velocity
        return self._guidance.combine(velocity[:count], velocity[count:])


class FlowPainter:
    """A `Painter` that integrates a learned flow in latents; ConfigError for networks that do not fit each other."""

    def __init__(
        self,
        transformer: UViT | DiT | UNet,
        text_encoder: TextEncoder,
        autoencoder: ImageAutoencoder,
        settings: SamplingSettings,
    ) -> None:
        if transformer.config.in_channels != autoencoder.config.latent_channels:
            raise ConfigError(
                f"in_channels: the transformer has {transformer.config.in_channels}, the autoencoder's latents "
                f"{autoencoder.config.latent_channels}"
            )
        if transformer.config.text_hidden_size != text_encoder.hidden_size:
            raise ConfigError(
                f"text_hidden_size: the transformer has {transformer.config.text_hidden_size}, the text encoder "
                f"{text_encoder.hidden_size}"
            )
        if settings.few_step and not transformer.config.step_size_embeds:
            raise ConfigError("few_step: is true, but the transformer takes no step sizes")
        multiple = math.lcm(16, _SPATIAL_FACTOR * transformer.config.patch_size)
        self._settings = replace(settings, sizes=between(settings.sizes, multiple))
        self._transformer = transformer
        self._texts = CachedTexts(text_encoder)
        self._autoencoder = autoencoder
        self._device = next(transformer.parameters()).device

    @property
    def settings(self) -> SamplingSettings:
        """What the folder says of sampling; to its sizes come those between them."""
        return self._settings

    @torch.inference_mode()
    def paint(
        self, drawing: Drawing, seeds: Sequence[int], cfg_scale: float, steps: int, on_step: OnStep | None = None
    ) -> list[np.ndarray]:
        """As `Painter.paint`.

        On the CPU, where a batch is no faster, each picture is drawn by itself, and is the same to the bit whatever the
        others are; elsewhere all are drawn as one batch.
        """
        velocity = self._velocity(drawing, cfg_scale)
        width, height = drawing.size
        shape = (self._transformer.config.in_channels, height // _SPATIAL_FACTOR, width // _SPATIAL_FACTOR)
        settings = self._settings
        shift = 1.0 if settings.few_step else resolution_shift(shape[1] * shape[2], settings.base_tokens)
        sampler: SamplerName = "euler" if settings.few_step else settings.sampler
        timesteps = sampling_timesteps(steps, shift)
        size = 1 if self._device.type == "cpu" else len(seeds)
        groups = [seeds[first : first + size] for first in range(0, len(seeds), size)]
        pictures: list[np.ndarray] = []
        for number, group in enumerate(groups):

            def step_done(done: int, latents: Tensor, before: int = number * steps) -> None:
                if on_step is not None and on_step(before + done, len(groups) * steps) is False:
                    raise Cancelled("the picture was given up before it was done")

            generators = [torch.Generator().manual_seed(seed) for seed in group]
            noise = initial_noise(shape, generators).to(self._device)
            latents = sample(velocity, noise, timesteps, sampler, generators=generators, on_step=step_done)
            pictures.extend(decode_on_white(self._autoencoder, latents))
        return pictures

    def _velocity(self, drawing: Drawing, cfg_scale: float) -> GuidedVelocity:
        settings = self._settings
        # Two answers to the same words are one.
        scale = 1.0 if drawing.text.strip() == drawing.negative_text.strip() else cfg_scale
        guidance = Guidance(
            cfg_scale=scale,
            start=settings.guidance_start,
            end=settings.guidance_end,
            rescale=settings.guidance_rescale,
        )
        return GuidedVelocity(
            self._transformer,
            self._texts(drawing.text),
            self._texts(drawing.negative_text),
            to_condition(drawing, self._autoencoder),
            guidance,
            few_step=settings.few_step,
        )
