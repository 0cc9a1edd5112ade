"""From noise to data along a learned flow."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

from kilonova.core.errors import ConfigError

SamplerName = Literal["euler", "heun", "dpm++2m", "ancestral"]


class VelocityModel(Protocol):
    """The velocity `noise - data` at `latents` `[B, ...]` and `timestep`, before a step to `next_timestep`."""

    def __call__(self, latents: Tensor, timestep: float, next_timestep: float) -> Tensor: ...


def sampling_timesteps(num_inference_steps: int, shift: float = 1.0) -> list[float]:
    """`num_inference_steps` + 1 times from 1, noise, to 0, data: even steps, then moved by `shift` towards noise."""
    if num_inference_steps < 1:
        raise ConfigError(f"num_inference_steps: {num_inference_steps} is less than 1")
    even = [1 - step / num_inference_steps for step in range(num_inference_steps + 1)]
    return [shift * t / (1 + (shift - 1) * t) for t in even]


def initial_noise(shape: Sequence[int], generators: Sequence[torch.Generator]) -> Tensor:
    """Float32 noise `[B, *shape]`, each sample from a generator of its own, so that a batch changes none of them."""
    return torch.stack([torch.randn(tuple(shape), generator=generator) for generator in generators])


def sample(
    model: VelocityModel,
    noise: Tensor,
    timesteps: Sequence[float],
    sampler: SamplerName = "euler",
    *,
    generators: Sequence[torch.Generator] = (),
    on_step: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """Carry `noise` `[B, ...]` through the falling `timesteps`; the last should be 0.

    `euler` and `heun` (arXiv 2206.00364, algorithm 1, without its noise) integrate the flow's equation; the latter asks
    the model twice a step. `dpm++2m` keeps the last answer (arXiv 2211.01095, algorithm 2, for this path). `ancestral`
    draws each step from the posterior of the path given the predicted data, the stochastic form, with a generator for
    each sample. The last step is Euler's for all of them, as nothing can be asked of a model at time 0.
    `on_step(steps_done, latents)` is called after each step. Raises ConfigError for an unknown sampler.
    """
    on_step = on_step or (lambda done, latents: None)
    if sampler == "ancestral":
        if len(generators) != len(noise):
            raise ConfigError(f"generators: {len(generators)} for {len(noise)} samples")
        return _ancestral(model, noise, timesteps, generators, on_step)
    integrators = {"euler": _euler, "heun": _heun, "dpm++2m": _dpm_solver_2m}
    if sampler not in integrators:
        raise ConfigError(f"sampler: {sampler!r} is not one of {', '.join(get_args(SamplerName))}")
    return integrators[sampler](model, noise, timesteps, on_step)


_OnStep = Callable[[int, Tensor], None]


def _euler(model: VelocityModel, latents: Tensor, timesteps: Sequence[float], on_step: _OnStep) -> Tensor:
    for step, (t, following) in enumerate(pairwise(timesteps), start=1):
        latents = latents + (following - t) * model(latents, t, following)
        on_step(step, latents)
    return latents


def _heun(model: VelocityModel, latents: Tensor, timesteps: Sequence[float], on_step: _OnStep) -> Tensor:
    for step, (t, following) in enumerate(pairwise(timesteps), start=1):
        velocity = model(latents, t, following)
        reached = latents + (following - t) * velocity
        if following > 0:
            velocity = (velocity + model(reached, following, following)) / 2
            reached = latents + (following - t) * velocity
        latents = reached
        on_step(step, latents)
    return latents


def _dpm_solver_2m(model: VelocityModel, latents: Tensor, timesteps: Sequence[float], on_step: _OnStep) -> Tensor:
    earlier, earlier_size = latents, math.inf
    for step, (t, following) in enumerate(pairwise(timesteps), start=1):
        data = latents - t * model(latents, t, following)
        size = _log_signal_to_noise(following) - _log_signal_to_noise(t)
        estimate = data
        # Infinite are the steps that leave pure noise and those that reach the data.
        if math.isfinite(size) and math.isfinite(earlier_size):
            estimate = data + size / (2 * earlier_size) * (data - earlier)
        latents = following / t * latents + ((1 - following) - (1 - t) * following / t) * estimate
        earlier, earlier_size = data, size
        on_step(step, latents)
    return latents


def _ancestral(
    model: VelocityModel,
    latents: Tensor,
    timesteps: Sequence[float],
    generators: Sequence[torch.Generator],
    on_step: _OnStep,
) -> Tensor:
    shape = latents.shape[1:]
    for step, (t, following) in enumerate(pairwise(timesteps), start=1):
        velocity = model(latents, t, following)
        data, noise = latents - t * velocity, latents + (1 - t) * velocity
        # Of q(x_s | x_t, data) with alpha = 1 - t and sigma = t (arXiv 2107.00630, equation 33).
        kept = (1 - t) / (1 - following)
        std = following / t * math.sqrt(max(t**2 - (kept * following) ** 2, 0.0))
        latents = (1 - following) * data + math.sqrt(max(following**2 - std**2, 0.0)) * noise
        if std:
            latents = latents + std * initial_noise(shape, generators).to(latents)
        on_step(step, latents)
    return latents


def _log_signal_to_noise(t: float) -> float:
    """The logarithm of alpha / sigma."""
    if t <= 0:
        return math.inf
    return -math.inf if t >= 1 else math.log1p(-t) - math.log(t)
