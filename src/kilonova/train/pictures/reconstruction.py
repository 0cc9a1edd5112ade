"""How far a reconstructed picture is from its original, transparency included.

Pictures are premultiplied RGBA in [-1, 1], `[B, 4, H, W]`. What a viewer sees over a ground is the colours plus as much
of the ground as alpha lets through, so that errors over black and over white bound those over any colour.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def over_black_and_white(image: Tensor) -> Tensor:
    """What is seen of a premultiplied picture over black and over white, in [0, 1]: `[B, 6, H, W]`."""
    shares = (image + 1) / 2
    colours, alpha = shares[:, :3], shares[:, 3:]
    return torch.cat((colours, colours + (1 - alpha)), dim=1)


def absolute_error(found: Tensor, original: Tensor) -> Tensor:
    """The mean absolute error of each picture over both grounds, `[B]`."""
    return (over_black_and_white(found) - over_black_and_white(original)).abs().mean((1, 2, 3))


def gradient_error(found: Tensor, original: Tensor, scales: int = 3) -> Tensor:
    """The mean absolute error of differences between neighbours, `[B]`, averaged over pictures halved again and again.

    Blurred edges cost little by the absolute error alone.
    """
    difference = over_black_and_white(found) - over_black_and_white(original)
    total = difference.new_zeros(len(difference))
    for scale in range(scales):
        if scale:
            difference = nn.functional.avg_pool2d(difference, 2)
        total = total + difference.diff(dim=2).abs().mean((1, 2, 3)) + difference.diff(dim=3).abs().mean((1, 2, 3))
    return total / (2 * scales)


def peak_signal_to_noise(found: Tensor, original: Tensor) -> Tensor:
    """The peak signal-to-noise ratio of each picture over both grounds, in dB, `[B]`; what is found is clamped."""
    difference = over_black_and_white(found).clamp(0, 1) - over_black_and_white(original)
    return -10 * torch.log10(difference.square().mean((1, 2, 3)).clamp(min=1e-10))
