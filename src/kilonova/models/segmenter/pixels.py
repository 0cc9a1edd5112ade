"""From a picture to features of every scale, and to how much of each pixel is foreground."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kilonova.models.segmenter.blocks import EncoderLayer, sine_positions
from kilonova.models.segmenter.config import MixedQuerySegmenterConfig
from kilonova.nn.convolution import ResidualBlock
from kilonova.nn.initialization import zero_layer
from kilonova.nn.rotary_2d import RotaryEmbedding2D, grid_positions

_ALPHA_CHANNELS = 8


@dataclass(frozen=True)
class PictureFeatures:
    """What a picture of `height` x `width` pixels is to the queries, whatever they ask for.

    `tokens` `[B, hidden, height / 16, width / 16]`, `eighth` `[B, channels, height / 8, width / 8]` and `pixels`
    `[B, channels, height / 2, width / 2]`, of which masks are made. `alpha_logits` `[B, height, width]`.
    """

    tokens: Tensor
    eighth: Tensor
    pixels: Tensor
    alpha_logits: Tensor


class PixelEncoder(nn.Module):
    """Residual convolutions down to an eighth of the resolution, and a transformer at a sixteenth."""

    def __init__(self, config: MixedQuerySegmenterConfig) -> None:
        super().__init__()
        channels = config.block_out_channels
        hidden_size, heads = config.hidden_size, config.num_attention_heads
        self.conv_in = nn.Conv2d(12, channels[0], 3, padding=1)
        self.downs = nn.ModuleList(
            nn.Conv2d(before, after, 3, stride=2, padding=1)
            for before, after in zip(channels, (*channels[1:], hidden_size), strict=True)
        )
        self.blocks = nn.ModuleList(
            nn.Sequential(
                *(ResidualBlock(width, width, config.norm_num_groups) for _ in range(config.layers_per_block))
            )
            for width in channels[1:]
        )
        self.rotary = RotaryEmbedding2D(hidden_size // heads, config.rope_theta)
        self.layers = nn.ModuleList(
            EncoderLayer(hidden_size, heads, config.mlp_ratio) for _ in range(config.num_encoder_layers)
        )

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Features at a half, a quarter, an eighth and a sixteenth of `image` `[B, 3, H, W]`, finest first."""
        half = self.conv_in(nn.functional.pixel_unshuffle(image, 2))
        quarter = self.blocks[0](self.downs[0](half))
        eighth = self.blocks[1](self.downs[1](quarter))
        grid = self.downs[2](eighth)
        height, width = grid.shape[-2:]
        x = grid.flatten(2).transpose(1, 2)
        x = x + sine_positions(height, width, x.shape[-1], x.device).to(x.dtype)
        rotary = self.rotary(grid_positions(height, width, x.device), x.dtype)
        for layer in self.layers:
            x = layer(x, rotary)
        return half, quarter, eighth, x.transpose(1, 2).unflatten(2, (height, width))


class PixelDecoder(nn.Module):
    """What the coarse levels know, brought back level by level to the fine ones (arXiv 1612.03144)."""

    def __init__(self, config: MixedQuerySegmenterConfig) -> None:
        super().__init__()
        channels = config.block_out_channels
        self.laterals = nn.ModuleList(
            nn.Conv2d(before, after, 1)
            for before, after in zip((config.hidden_size, *channels[:0:-1]), channels[::-1], strict=True)
        )
        self.blocks = nn.ModuleList(ResidualBlock(width, width, config.norm_num_groups) for width in channels[::-1])

    def forward(self, half: Tensor, quarter: Tensor, eighth: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Features at an eighth and at a half of the resolution."""
        levels = []
        x = tokens
        for lateral, block, finer in zip(self.laterals, self.blocks, (eighth, quarter, half), strict=True):
            x = block(finer + nn.functional.interpolate(lateral(x), scale_factor=2))
            levels.append(x)
        return levels[0], levels[-1]


class AlphaHead(nn.Module):
    """Logits of the foreground at full resolution, from features at half of it beside the picture itself."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.to_pixels = nn.Conv2d(in_channels, 4 * _ALPHA_CHANNELS, 3, padding=1)
        self.refine = nn.Conv2d(_ALPHA_CHANNELS + 3, _ALPHA_CHANNELS, 3, padding=1)
        self.conv_out = nn.Conv2d(_ALPHA_CHANNELS, 1, 3, padding=1)

    def forward(self, pixels: Tensor, image: Tensor) -> Tensor:
        """`[B, H, W]` of `pixels` `[B, C, H / 2, W / 2]` and `image` `[B, 3, H, W]`."""
        x = nn.functional.pixel_shuffle(self.to_pixels(nn.functional.silu(pixels)), 2)
        x = x + self.refine(nn.functional.silu(torch.cat((x, image), dim=1)))
        return self.conv_out(nn.functional.silu(x))[:, 0]


class PictureEncoder(nn.Module):
    """A picture's features, which know of no words: one encoding serves every question about a picture."""

    def __init__(self, config: MixedQuerySegmenterConfig) -> None:
        super().__init__()
        finest = config.block_out_channels[0]
        self.encoder = PixelEncoder(config)
        self.decoder = PixelDecoder(config)
        self.norm_out = nn.GroupNorm(config.norm_num_groups, finest)
        self.alpha = AlphaHead(finest)
        self.mask_features = nn.Conv2d(finest, finest, 1)

    def init_residuals(self) -> None:
        """Let residual blocks add nothing until they are trained."""
        for module in self.modules():
            if isinstance(module, ResidualBlock):
                zero_layer(module.conv2)

    def forward(self, image: Tensor) -> PictureFeatures:
        """Of `image` `[B, 3, H, W]`, RGB in [-1, 1], whose sides are multiples of 16."""
        half, quarter, eighth, tokens = self.encoder(image)
        eighth, finest = self.decoder(half, quarter, eighth, tokens)
        finest = self.norm_out(finest)
        return PictureFeatures(
            tokens=tokens,
            eighth=eighth,
            pixels=self.mask_features(nn.functional.silu(finest)),
            alpha_logits=self.alpha(finest, image),
        )
