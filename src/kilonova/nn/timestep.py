"""Embedding of the time along a flow."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

# What models of 1000 noise levels were made for; times in [0, 1] need it to differ in every frequency.
_TIMESTEP_SCALE = 1000.0


def sinusoidal_embedding(values: Tensor, size: int, max_period: float = 10_000.0) -> Tensor:
    """Cosines, then sines, of `values` `[...]` at `size` / 2 frequencies from 1 down to 1 / `max_period`.

    Float32 `[..., size]` (arXiv 1706.03762, section 3.5, in the order of arXiv 2006.11239); `size` is even.
    """
    half = size // 2
    frequencies = torch.exp(-math.log(max_period) / half * torch.arange(half, device=values.device))
    angles = values.float()[..., None] * frequencies
    return torch.cat((angles.cos(), angles.sin()), dim=-1)


class TimestepEmbedding(nn.Module):
    """Times in [0, 1] to vectors: sinusoids, then two linear layers with SiLU between them."""

    def __init__(self, frequency_size: int, hidden_size: int) -> None:
        super().__init__()
        self.frequency_size = frequency_size
        self.linear_1 = nn.Linear(frequency_size, hidden_size)
        self.linear_2 = nn.Linear(hidden_size, hidden_size)

    def forward(self, timestep: Tensor) -> Tensor:
        """`[B, hidden]` of `timestep` `[B]`."""
        frequencies = sinusoidal_embedding(timestep * _TIMESTEP_SCALE, self.frequency_size)
        return self.linear_2(nn.functional.silu(self.linear_1(frequencies.to(self.linear_1.weight.dtype))))
