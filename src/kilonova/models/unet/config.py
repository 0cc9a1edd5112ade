"""Configuration and variants of the UNet."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from kilonova.core.errors import ConfigError
from kilonova.models.backbone import Prediction
from kilonova.models.component_config import ComponentConfig

_HEAD_DIM = 64
_NORM_NUM_GROUPS = 32
# Channels of a scaled network are multiples of this, so that group norms have groups to form.
_CHANNELS_STEP = 4


@dataclass(frozen=True, kw_only=True)
class UNetConfig(ComponentConfig):
    """Shape of a UNet of the SDXL type (arXiv 2307.01952, section 2.1).

    `block_out_channels` and `transformer_depth` hold, for each level from the finest down, the channels and the number
    of transformer blocks after each of its `layers_per_block` residual blocks. `attention_head_dim` divides the
    channels wherever there are transformers, and `norm_num_groups` divides all. `patch_size` is that of the patches by
    which pictures are attended to, not of the latents. Impossible values are a ConfigError.
    """

    in_channels: int = 16
    patch_size: int = 2
    block_out_channels: tuple[int, ...]
    transformer_depth: tuple[int, ...]
    layers_per_block: int = 2
    attention_head_dim: int = _HEAD_DIM
    norm_num_groups: int = _NORM_NUM_GROUPS
    text_hidden_size: int = 256
    prediction: Prediction = "v"
    step_size_embeds: bool = False

    def __post_init__(self) -> None:
        self._require_positive(
            "in_channels",
            "patch_size",
            "block_out_channels",
            "layers_per_block",
            "attention_head_dim",
            "norm_num_groups",
            "text_hidden_size",
        )
        if not self.block_out_channels:
            raise ConfigError("block_out_channels: is empty")
        if len(self.transformer_depth) != len(self.block_out_channels):
            raise ConfigError(
                f"transformer_depth: {len(self.transformer_depth)} levels, "
                f"but block_out_channels has {len(self.block_out_channels)}"
            )
        self._require_multiple("block_out_channels", self.norm_num_groups, "norm_num_groups")
        self._require_multiple("text_hidden_size", 4, "as picture tokens have sinusoids by row and by column")
        for channels, depth in zip(self.block_out_channels, self.transformer_depth, strict=True):
            if depth < 0:
                raise ConfigError(f"transformer_depth: {depth} is less than 0")
            if depth and channels % self.attention_head_dim:
                raise ConfigError(f"attention_head_dim: {self.attention_head_dim} does not divide {channels} channels")

    def scaled(self, width: float) -> UNetConfig:
        """The same network with `width` times the channels, to the nearest multiple of 4, and heads of about 64."""
        first = self.block_out_channels[0]
        base = max(round(first * width / _CHANNELS_STEP), 1) * _CHANNELS_STEP
        heads = min((n for n in range(1, base + 1) if base % n == 0), key=lambda n: abs(base // n - _HEAD_DIM))
        return replace(
            self,
            block_out_channels=tuple(base * (channels // first) for channels in self.block_out_channels),
            attention_head_dim=base // heads,
            norm_num_groups=math.gcd(base, _NORM_NUM_GROUPS),
        )


def _variant(channels: int, *transformer_depth: int) -> UNetConfig:
    return UNetConfig(block_out_channels=(channels, 2 * channels, 4 * channels), transformer_depth=transformer_depth)


# The variants of arXiv 2404.02883, section 3: SDXL's, its widths, and its transformer depths.
UNET_VARIANTS = {
    "sdxl": _variant(320, 0, 2, 10),
    "c128": _variant(128, 0, 2, 10),
    "c192": _variant(192, 0, 2, 10),
    "c384": _variant(384, 0, 2, 10),
    "td2": _variant(320, 0, 2, 2),
    "td4": _variant(320, 0, 2, 4),
    "td12": _variant(320, 0, 2, 12),
    "td14": _variant(320, 0, 2, 14),
    "td4_4": _variant(320, 0, 4, 4),
    "td4_8": _variant(320, 0, 4, 8),
    "td4_12": _variant(320, 0, 4, 12),
}
