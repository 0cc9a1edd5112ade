"""Convolutional blocks of autoencoders and UNets."""

from __future__ import annotations

from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around an identity, or a 1x1 convolution where the number of channels changes.

    Each follows a group norm (none if `norm_num_groups` is None) and SiLU; with `time_size`, a linear layer of an
    embedding is added between them (arXiv 2006.11239, appendix B).
    """

    def __init__(
        self, in_channels: int, out_channels: int, norm_num_groups: int | None, time_size: int | None = None
    ) -> None:
        super().__init__()
        self.norm1 = group_norm(norm_num_groups, in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.time_proj = nn.Linear(time_size, out_channels) if time_size is not None else None
        self.norm2 = group_norm(norm_num_groups, out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        """`[B, out, h, w]` of `x` `[B, in, h, w]` and `time` `[B, time]`, if the block takes one."""
        residual = self.conv1(nn.functional.silu(self.norm1(x)))
        if self.time_proj is not None and time is not None:
            residual = residual + self.time_proj(nn.functional.silu(time))[:, :, None, None]
        return self.shortcut(x) + self.conv2(nn.functional.silu(self.norm2(residual)))


class ResidualDownsample(nn.Module):
    """Halves a picture: a convolution beside the plain space-to-depth average (arXiv 2410.10733, section 3.2).

    `out_channels` must divide 4 * `in_channels` and be a multiple of 4.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.conv = nn.Conv2d(in_channels, out_channels // 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, out, h / 2, w / 2]` of `x` `[B, in, h, w]`."""
        shortcut = nn.functional.pixel_unshuffle(x, 2).unflatten(1, (self.out_channels, -1)).mean(2)
        return nn.functional.pixel_unshuffle(self.conv(x), 2) + shortcut


class ResidualUpsample(nn.Module):
    """Doubles a picture: a convolution beside the plain depth-to-space copy (arXiv 2410.10733, section 3.2).

    `in_channels` must divide 4 * `out_channels`.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.repeats = 4 * out_channels // in_channels
        self.conv = nn.Conv2d(in_channels, 4 * out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, out, 2 * h, 2 * w]` of `x` `[B, in, h, w]`."""
        return nn.functional.pixel_shuffle(self.conv(x) + x.repeat_interleave(self.repeats, dim=1), 2)


def group_norm(num_groups: int | None, channels: int) -> nn.Module:
    """A group norm (arXiv 1803.08494), or nothing for `num_groups` None."""
    return nn.Identity() if num_groups is None else nn.GroupNorm(num_groups, channels)
