"""Rotary positions of picture tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from kilonova.nn.rotary import RotaryEmbedding


class RotaryEmbedding2D(RotaryEmbedding):
    """Cosines and sines for rows and columns: half of the rotated pairs turn by each (arXiv 2403.13298, axial).

    `head_dim` must be a multiple of 4. A token at row and column 0 is not turned at all.
    """

    def __init__(self, head_dim: int, theta: float) -> None:
        super().__init__(head_dim // 2, theta)

    def forward(self, position_ids: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """cos and sin, each `[T, head_dim]` in `dtype`, for rows and columns `position_ids` `[T, 2]`."""
        angles = (position_ids[..., None].float() * self.inverse_frequencies).flatten(-2)
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos().to(dtype), angles.sin().to(dtype)


def grid_positions(height: int, width: int, device: torch.device | None = None) -> Tensor:
    """Row and column of each token of a `height` x `width` picture, row by row, from its middle: `[height * width, 2]`.

    Counted from the middle, so that pictures of every aspect have theirs where tokens without a place are.
    """
    rows = torch.arange(height, device=device) - (height - 1) / 2
    columns = torch.arange(width, device=device) - (width - 1) / 2
    return torch.stack((rows[:, None].expand(-1, width), columns.expand(height, -1)), dim=-1).flatten(0, 1)
