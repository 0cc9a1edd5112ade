"""The image autoencoder: convolutions at a quarter and an eighth of the resolution, and a light touch at the whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from kilonova.core.errors import ConfigError
from kilonova.models.autoencoder.alpha import premultiply, unpremultiply
from kilonova.models.autoencoder.config import ImageAutoencoderConfig
from kilonova.nn.convolution import ResidualBlock, ResidualDownsample, ResidualUpsample, group_norm
from kilonova.nn.initialization import init_layers, zero_layer

_STEM_FACTOR = 4
_SPATIAL_FACTOR = 8


class Encoder(nn.Module):
    """Premultiplied RGBA `[B, 4, H, W]` to raw latents `[B, latent_channels, H / 8, W / 8]`."""

    def __init__(self, config: ImageAutoencoderConfig) -> None:
        super().__init__()
        quarter, eighth = config.block_out_channels
        self.conv_in = nn.Conv2d(4 * _STEM_FACTOR**2, quarter, 3, padding=1)
        self.quarter_blocks = _blocks(quarter, config.encoder_layers[0], config.norm_num_groups)
        self.down = ResidualDownsample(quarter, eighth)
        self.eighth_blocks = _blocks(eighth, config.encoder_layers[1], config.norm_num_groups)
        self.norm_out = group_norm(config.norm_num_groups, eighth)
        self.conv_out = nn.Conv2d(eighth, config.latent_channels, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.quarter_blocks(self.conv_in(nn.functional.pixel_unshuffle(image, _STEM_FACTOR)))
        x = self.eighth_blocks(self.down(x))
        return self.conv_out(nn.functional.silu(self.norm_out(x)))


class Decoder(nn.Module):
    """Raw latents `[B, latent_channels, h, w]` to premultiplied RGBA `[B, 4, 8 * h, 8 * w]`, not clamped."""

    def __init__(self, config: ImageAutoencoderConfig) -> None:
        super().__init__()
        quarter, eighth = config.block_out_channels
        refine = config.refine_channels
        self.conv_in = nn.Conv2d(config.latent_channels, eighth, 3, padding=1)
        self.eighth_blocks = _blocks(eighth, config.decoder_layers[1], config.norm_num_groups)
        self.up = ResidualUpsample(eighth, quarter)
        self.quarter_blocks = _blocks(quarter, config.decoder_layers[0], config.norm_num_groups)
        self.norm_out = group_norm(config.norm_num_groups, quarter)
        self.to_pixels = nn.Conv2d(quarter, refine * _STEM_FACTOR**2, 3, padding=1)
        self.refine = nn.Conv2d(refine, refine, 3, padding=1)
        self.conv_out = nn.Conv2d(refine, 4, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        x = self.up(self.eighth_blocks(self.conv_in(latents)))
        x = nn.functional.silu(self.norm_out(self.quarter_blocks(x)))
        x = nn.functional.pixel_shuffle(self.to_pixels(x), _STEM_FACTOR)
        x = x + self.refine(nn.functional.silu(x))
        return self.conv_out(nn.functional.silu(x))


class ImageAutoencoder(nn.Module):
    """RGBA pictures in [-1, 1] to latents at an eighth of the resolution, without sampling, and back.

    It works on premultiplied colours, so that the colour of what is wholly transparent neither counts nor has to be
    stored. Weights are of no use until `init_weights` draws them or a checkpoint fills them.
    """

    def __init__(self, config: ImageAutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)

    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Draw fresh weights; residual blocks add nothing until they are trained."""
        init_layers(self, generator)
        for module in self.modules():
            if isinstance(module, ResidualBlock):
                zero_layer(module.conv2)
        zero_layer(self.decoder.refine)

    def encode(self, image: Tensor) -> Tensor:
        """Normalised latents `[B, latent_channels, H / 8, W / 8]` of `image` `[B, 4, H, W]`, straight RGBA in [-1, 1].

        ConfigError for sides that are no multiple of 8, or for other than four channels.
        """
        _, channels, height, width = image.shape
        if channels != 4:
            raise ConfigError(f"image: {channels} channels, not the 4 of RGBA")
        if height % _SPATIAL_FACTOR or width % _SPATIAL_FACTOR:
            raise ConfigError(f"image: {height} x {width} is not a multiple of {_SPATIAL_FACTOR}")
        latents = self.encoder(premultiply(image))
        mean, std = self._statistics(latents)
        return (latents - mean) / std

    def decode_premultiplied(self, latents: Tensor) -> Tensor:
        """Premultiplied RGBA `[B, 4, 8 * h, 8 * w]` of normalised `latents`, not clamped: what a loss compares."""
        mean, std = self._statistics(latents)
        return self.decoder(latents * std + mean)

    def decode(self, latents: Tensor) -> Tensor:
        """Straight RGBA in [-1, 1], `[B, 4, 8 * h, 8 * w]`, of normalised `latents`; see `unpremultiply`."""
        return unpremultiply(self.decode_premultiplied(latents))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """What training needs of `image`: its `decode_premultiplied` reconstruction, and the latents it is made of."""
        latents = self.encode(image)
        return self.decode_premultiplied(latents), latents

    def set_latent_statistics(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Normalise from now on by these values, which were measured on latents that `encode` gave without any."""
        self.config = replace(self.config, latents_mean=tuple(mean), latents_std=tuple(std))

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        channels = self.config.latent_channels
        mean = like.new_tensor(self.config.latents_mean or (0.0,) * channels)
        std = like.new_tensor(self.config.latents_std or (1.0,) * channels)
        return mean.view(1, -1, 1, 1), std.view(1, -1, 1, 1)


def _blocks(channels: int, count: int, norm_num_groups: int | None) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(channels, channels, norm_num_groups) for _ in range(count)))
