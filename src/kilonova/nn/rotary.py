"""Rotary position embedding and its context-extension scalings."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class RotaryScaling:
    """How rotary frequencies are stretched beyond the context a model was first trained on.

    `linear` divides every frequency by `factor` (arXiv 2306.15595); `llama3` divides the low ones only, with a smooth
    ramp between `low_freq_factor` and `high_freq_factor` (Llama 3.1); `yarn` interpolates between the two by the
    number of rotations and scales attention by `attention_factor` (arXiv 2309.00071).
    """

    rope_type: Literal["linear", "llama3", "yarn"]
    factor: float
    original_max_position_embeddings: int | None = None
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None
    mscale: float | None = None
    mscale_all_dim: float | None = None
    truncate: bool = True


def rotary_frequencies(
    head_dim: int, theta: float, scaling: RotaryScaling | None, max_position_embeddings: int
) -> tuple[Tensor, float]:
    """Inverse frequencies `[head_dim / 2]` (float32, on the CPU) and the factor by which cos and sin are multiplied."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.int64, device="cpu").float() / head_dim
    inverse = 1.0 / (theta**exponents)
    if scaling is None:
        return inverse, 1.0
    if scaling.rope_type == "linear":
        return inverse / scaling.factor, 1.0
    original = scaling.original_max_position_embeddings or max_position_embeddings
    if scaling.rope_type == "llama3":
        return _llama3_frequencies(inverse, scaling, original), 1.0
    return _yarn_frequencies(inverse, scaling, original, head_dim, theta)


def _llama3_frequencies(inverse: Tensor, scaling: RotaryScaling, original: int) -> Tensor:
    wavelength = 2 * math.pi / inverse
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    smooth = ((original / wavelength - low) / (high - low)).clamp(0, 1)
    return (1 - smooth) * inverse / scaling.factor + smooth * inverse


def _yarn_frequencies(
    inverse: Tensor, scaling: RotaryScaling, original: int, head_dim: int, theta: float
) -> tuple[Tensor, float]:
    def dimension(rotations: float) -> float:
        return head_dim * math.log(original / (rotations * 2 * math.pi)) / (2 * math.log(theta))

    low, high = dimension(scaling.beta_fast), dimension(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    width = high - low or 0.001
    ramp = ((torch.arange(head_dim // 2, device="cpu").float() - low) / width).clamp(0, 1)
    frequencies = inverse / scaling.factor * ramp + inverse * (1 - ramp)
    return frequencies, _yarn_attention_factor(scaling)


def _yarn_attention_factor(scaling: RotaryScaling) -> float:
    if scaling.attention_factor is not None:
        return scaling.attention_factor

    def mscale(weight: float) -> float:
        return 0.1 * weight * math.log(scaling.factor) + 1.0 if scaling.factor > 1 else 1.0

    if scaling.mscale and scaling.mscale_all_dim:
        return mscale(scaling.mscale) / mscale(scaling.mscale_all_dim)
    return mscale(1.0)


class RotaryEmbedding(nn.Module):
    """Cosines and sines for given positions (arXiv 2104.09864, half-split layout).

    The frequencies follow the module from device to device but stay float32 whatever dtype it is converted to, and
    survive the meta device: positions in the thousands need every bit of them.
    """

    inverse_frequencies: Tensor

    def __init__(
        self, head_dim: int, theta: float, scaling: RotaryScaling | None = None, max_position_embeddings: int = 2048
    ) -> None:
        super().__init__()
        exact, self.attention_factor = rotary_frequencies(head_dim, theta, scaling, max_position_embeddings)
        self._exact_frequencies = exact
        self.register_buffer("inverse_frequencies", exact.clone(), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        self.inverse_frequencies = self._exact_frequencies.to(self.inverse_frequencies.device, copy=True)
        return self

    def forward(self, position_ids: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """cos and sin, each `[..., T, head_dim]` in `dtype`, for `position_ids` `[..., T]`."""
        angles = position_ids[..., None].float() * self.inverse_frequencies
        angles = torch.cat((angles, angles), dim=-1)
        return (
            (angles.cos() * self.attention_factor).to(dtype),
            (angles.sin() * self.attention_factor).to(dtype),
        )


def apply_rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate `x` `[B, heads, T, head_dim]` by `cos` and `sin`, which broadcast against it."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin
