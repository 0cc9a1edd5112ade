"""Straight and premultiplied transparency, both as RGBA in [-1, 1]."""

from __future__ import annotations

import torch
from torch import Tensor

# Half a step of eight bits: what is less opaque has no colour that could be seen.
_LEAST_ALPHA = 0.5 / 255


def premultiply(image: Tensor) -> Tensor:
    """`image` `[B, 4, H, W]` with colours, as shares of white, times alpha: what is transparent becomes black."""
    alpha = (image[:, 3:] + 1) / 2
    return torch.cat(((image[:, :3] + 1) * alpha - 1, image[:, 3:]), dim=1)


def unpremultiply(image: Tensor) -> Tensor:
    """The straight form of a premultiplied `image` `[B, 4, H, W]`, clamped to [-1, 1].

    Colours are divided by alpha; where alpha is under half a step of eight bits, they are black.
    """
    alpha = ((image[:, 3:] + 1) / 2).clamp(0, 1)
    colour = (image[:, :3] + 1) / 2 / alpha.clamp(min=_LEAST_ALPHA)
    colour = torch.where(alpha < _LEAST_ALPHA, 0.0, colour.clamp(0, 1))
    return torch.cat((colour, alpha), dim=1) * 2 - 1
