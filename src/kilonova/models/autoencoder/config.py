"""Configuration and sizes of the image autoencoder."""

from __future__ import annotations

from dataclasses import dataclass

from kilonova.core.errors import ConfigError
from kilonova.models.component_config import ComponentConfig


@dataclass(frozen=True, kw_only=True)
class ImageAutoencoderConfig(ComponentConfig):
    """Shape of an autoencoder of RGBA pictures with latents an eighth as wide and high.

    `block_out_channels`, `encoder_layers` and `decoder_layers` give the channels, and the numbers of residual blocks,
    at a quarter and at an eighth of the resolution. `refine_channels` are those at the decoder's full resolution.
    `norm_num_groups` None leaves the norms out. `latents_mean` and `latents_std`, a value a latent channel, are
    measured on data and make the latents zero-mean and unit-variance; None leaves them as they are. Impossible values
    are a ConfigError.
    """

    latent_channels: int = 16
    block_out_channels: tuple[int, int]
    encoder_layers: tuple[int, int]
    decoder_layers: tuple[int, int]
    refine_channels: int = 16
    norm_num_groups: int | None = 16
    latents_mean: tuple[float, ...] | None = None
    latents_std: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        self._require_positive(
            "latent_channels", "block_out_channels", "encoder_layers", "decoder_layers", "refine_channels"
        )
        quarter, eighth = self.block_out_channels
        if eighth % 4 or 4 * quarter % eighth:
            raise ConfigError(
                f"block_out_channels: the shortcuts need the second, {eighth}, to be a multiple of 4 and to divide "
                f"four times the first, {4 * quarter}"
            )
        if self.norm_num_groups is not None:
            self._require_positive("norm_num_groups")
            self._require_multiple("block_out_channels", self.norm_num_groups, "norm_num_groups")
        for name in ("latents_mean", "latents_std"):
            values = getattr(self, name)
            if values is not None and len(values) != self.latent_channels:
                raise ConfigError(f"{name}: {len(values)} values for latent_channels {self.latent_channels}")
        if self.latents_std is not None and min(self.latents_std) <= 0:
            raise ConfigError(f"latents_std: {min(self.latents_std)} is not positive")


AUTOENCODER_PRESETS = {
    "small": ImageAutoencoderConfig(
        block_out_channels=(64, 128), encoder_layers=(2, 2), decoder_layers=(3, 3), refine_channels=16
    ),
    "mid": ImageAutoencoderConfig(
        block_out_channels=(128, 256), encoder_layers=(2, 4), decoder_layers=(4, 5), refine_channels=32
    ),
}
