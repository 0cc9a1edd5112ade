"""Rectified flow: the straight path between data and noise, and what a model is asked for on it.

Time 0 is data and time 1 is noise: `x_t = (1 - t) data + t noise`, and a model predicts the path's velocity
`noise - data` or the data itself (arXiv 2209.03003; arXiv 2403.03206, section 2).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from kilonova.models.backbone import Prediction

# Nearer to the data than this, a velocity cannot be told from a prediction of the data.
_MIN_TIMESTEP = 0.02


def interpolate(data: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
    """The point at `timestep` `[B]` of the path from `data` `[B, ...]` to `noise`."""
    t = _per_sample(timestep, data)
    return torch.lerp(data, noise, t.expand_as(data))


def to_velocity(prediction: Tensor, kind: Prediction, noisy: Tensor, timestep: Tensor) -> Tensor:
    """The velocity that a model's output at `noisy` `[B, ...]` and `timestep` `[B]` stands for.

    From a prediction of the data it is `(noisy - data) / t`, where `t` is at least 0.02.
    """
    if kind == "v":
        return prediction
    return (noisy - prediction) / _per_sample(timestep, noisy).clamp(min=_MIN_TIMESTEP)


def to_data(velocity: Tensor, noisy: Tensor, timestep: Tensor) -> Tensor:
    """The data that lies `timestep` `[B]` before `noisy` `[B, ...]` along `velocity`."""
    return noisy - _per_sample(timestep, noisy) * velocity


def shift_timestep(timestep: Tensor, shift: float) -> Tensor:
    """Times moved towards noise, as fits pictures of more tokens (arXiv 2403.03206, equation 23)."""
    return shift * timestep / (1 + (shift - 1) * timestep)


def resolution_shift(num_tokens: int, base_tokens: int) -> float:
    """The shift that gives `num_tokens` the noise level that `base_tokens` have without one."""
    return math.sqrt(num_tokens / base_tokens)


def sample_timesteps(
    count: int, generator: torch.Generator, *, mean: float = 0.0, std: float = 1.0, shift: float = 1.0
) -> Tensor:
    """Times of a training step, float32 `[count]`: logit-normal (arXiv 2403.03206, section 3.1), then shifted.

    They are stratified, one from each `count`-th of the distribution in random order, which lowers the variance of the
    loss and leaves its mean.
    """
    strata = torch.randperm(count, generator=generator, dtype=torch.float64)
    quantiles = (strata + torch.rand(count, generator=generator, dtype=torch.float64)) / count
    normal = torch.special.ndtri(quantiles.clamp(1e-6, 1 - 1e-6))
    return shift_timestep(torch.sigmoid(mean + std * normal), shift).float()


def shortcut_target(
    velocity: Callable[[Tensor, Tensor, Tensor], Tensor], noisy: Tensor, timestep: Tensor, step_size: Tensor
) -> Tensor:
    """What one step of twice `step_size` should do: the mean velocity of two such steps (arXiv 2410.12557, equation 5).

    `velocity(noisy, timestep, step_size)` is the model, `timestep` and `step_size` are `[B]`, with `timestep` at least
    twice `step_size`. Without gradients.
    """
    with torch.no_grad():
        first = velocity(noisy, timestep, step_size)
        halfway = noisy - _per_sample(step_size, noisy) * first
        second = velocity(halfway, timestep - step_size, step_size)
        return (first + second) / 2


def _per_sample(values: Tensor, like: Tensor) -> Tensor:
    return values.to(like.dtype).view(-1, *[1] * (like.ndim - 1))
