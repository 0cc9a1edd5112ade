from __future__ import annotations

import pytest
import torch
from torch.nn.functional import conv2d

from kilonova.nn.convolution import ResidualBlock, ResidualDownsample, ResidualUpsample
from kilonova.nn.initialization import zero_layer


def group_normed(x, norm):
    grouped = x.unflatten(1, (norm.num_groups, -1))
    mean = grouped.mean((2, 3, 4), keepdim=True)
    variance = (grouped - mean).square().mean((2, 3, 4), keepdim=True)
    normed = ((grouped - mean) / (variance + norm.eps).sqrt()).flatten(1, 2)
    return normed * norm.weight[:, None, None] + norm.bias[:, None, None]


def silu(x):
    return x / (1 + (-x).exp())


@pytest.mark.parametrize("out_channels", [8, 12])
def test_a_residual_block_is_its_formula(out_channels):
    generator = torch.Generator().manual_seed(0)
    block = ResidualBlock(8, out_channels, 4, time_size=6).double()
    for parameter in block.parameters():
        parameter.data.normal_(generator=generator)
    x = torch.randn(2, 8, 5, 3, generator=generator, dtype=torch.float64)
    time = torch.randn(2, 6, generator=generator, dtype=torch.float64)
    inner = conv2d(silu(group_normed(x, block.norm1)), block.conv1.weight, block.conv1.bias, padding=1)
    inner = inner + (silu(time) @ block.time_proj.weight.T + block.time_proj.bias)[:, :, None, None]
    inner = conv2d(silu(group_normed(inner, block.norm2)), block.conv2.weight, block.conv2.bias, padding=1)
    shortcut = x if out_channels == 8 else conv2d(x, block.shortcut.weight, block.shortcut.bias)
    torch.testing.assert_close(block(x, time), shortcut + inner)


def test_without_weights_resampling_averages_and_copies():
    x = torch.randn(1, 4, 6, 4, generator=torch.Generator().manual_seed(0))
    down, up = ResidualDownsample(4, 8), ResidualUpsample(8, 4)
    zero_layer(down.conv)
    zero_layer(up.conv)
    halved = down(x)
    assert halved.shape == (1, 8, 3, 2)
    # Each output channel is the mean of two of the four places of one input channel.
    torch.testing.assert_close(halved[0, 0], x[0, 0, 0::2].unflatten(1, (-1, 2)).mean(-1))
    torch.testing.assert_close(halved[0, 1], x[0, 0, 1::2].unflatten(1, (-1, 2)).mean(-1))
    doubled = up(halved)
    assert doubled.shape == x.shape
    # Two channels of half the rows each are laid out again, so rows keep their means.
    torch.testing.assert_close(doubled.unflatten(3, (-1, 2)).mean(-1), x.unflatten(3, (-1, 2)).mean(-1))
