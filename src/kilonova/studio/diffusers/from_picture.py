"""Variations and inpainting with a pipeline that was made for texts alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from kilonova.studio.diffusers.folder import diffusers_class

_DEFAULT_SHIFT = 3.0


def flow_pipeline(pipeline: Any) -> Any:
    """The same pipeline with Euler's steps along the flow, which may begin anywhere on it."""
    config = pipeline.scheduler.config
    shift = config.get("flow_shift", config.get("shift", _DEFAULT_SHIFT))
    scheduler = diffusers_class("FlowMatchEulerDiscreteScheduler")(shift=shift)
    return type(pipeline)(**{**pipeline.components, "scheduler": scheduler})


@dataclass(frozen=True)
class FlowStart:
    """Where a flow begins: `latents` at the first of `sigmas`, of `clean` latents and `noise` (all `[1, C, h, w]`).

    `mask` `[1, 1, h, w]` is 1 where latents are made anew; elsewhere `keep` puts the clean ones back after each step
    (arXiv 2201.09865, section 4.1, without resampling). None makes all anew.
    """

    sigmas: list[float]
    latents: Tensor
    clean: Tensor
    noise: Tensor
    mask: Tensor | None

    def keep(self, latents: Tensor, sigma: float) -> Tensor:
        """`latents` after a step that ended at noise level `sigma`, with what is kept as it would be there."""
        if self.mask is None:
            return latents
        kept = torch.lerp(self.clean, self.noise, sigma)
        return torch.lerp(kept, latents, self.mask)


def flow_start(
    pipeline: Any,
    picture: Image.Image,
    mask: Image.Image | None,
    strength: float,
    num_inference_steps: int,
    generator: torch.Generator,
) -> FlowStart:
    """Begin at the share `strength` of a flow that has `num_inference_steps`, with noise from `generator`."""
    clean = _encode(pipeline, picture)
    noise = torch.randn(clean.shape, generator=generator).to(clean)
    count = max(round(strength * num_inference_steps), 1)
    sigmas = np.linspace(strength, strength / count, count).tolist()
    pipeline.scheduler.set_timesteps(sigmas=sigmas)
    return FlowStart(
        sigmas,
        torch.lerp(clean, noise, float(pipeline.scheduler.sigmas[0])),
        clean,
        noise,
        None if mask is None else _latent_mask(mask, clean),
    )


def keeping(start: FlowStart, on_step_end: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """`on_step_end`, a callback of diffusers, after what `start` keeps has been put back."""

    def callback(pipeline: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        sigma = float(pipeline.scheduler.sigmas[step + 1])
        tensors["latents"] = start.keep(tensors["latents"], sigma)
        return on_step_end(pipeline, step, timestep, tensors)

    return callback


@torch.no_grad()
def _encode(pipeline: Any, picture: Image.Image) -> Tensor:
    vae = pipeline.vae
    pixels = pipeline.image_processor.preprocess(picture).to(vae.device, vae.dtype)
    return vae.encode(pixels).latent.float() * vae.config.scaling_factor


def _latent_mask(mask: Image.Image, latents: Tensor) -> Tensor:
    """1 for latents of which any pixel is made anew."""
    pixels = torch.from_numpy(np.array(mask.convert("L"))).to(latents)[None, None] / 255
    return torch.nn.functional.adaptive_max_pool2d(pixels, latents.shape[-2:])
