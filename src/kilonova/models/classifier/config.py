"""Configuration of the attribute classifier."""

from __future__ import annotations

from dataclasses import dataclass

from kilonova.core.errors import ConfigError
from kilonova.models.component_config import ComponentConfig


@dataclass(frozen=True, kw_only=True)
class AttributeClassifierConfig(ComponentConfig):
    """Shape of a classifier of pictures with several attributes.

    `heads` gives the values of each attribute, in the order of its logits. Pictures are squares of `image_size` pixels.
    `block_out_channels` are the channels at a half, a quarter, an eighth ... of that, with `layers_per_block` residual
    blocks each; the last is the size of the features. Impossible values are a ConfigError.
    """

    heads: dict[str, tuple[str, ...]]
    image_size: int = 64
    block_out_channels: tuple[int, ...] = (48, 96, 192)
    layers_per_block: int = 1
    norm_num_groups: int = 16

    def __post_init__(self) -> None:
        self._require_positive("image_size", "block_out_channels", "layers_per_block", "norm_num_groups")
        self._require_multiple("block_out_channels", self.norm_num_groups, "norm_num_groups")
        self._require_multiple("image_size", 2 ** len(self.block_out_channels), "of which each level halves the sides")
        for before, after in zip(self.block_out_channels, self.block_out_channels[1:], strict=False):
            if after % 4 or 4 * before % after:
                raise ConfigError(
                    f"block_out_channels: the shortcuts need each, as {after}, to be a multiple of 4 and to divide "
                    f"four times the one before it, {4 * before}"
                )
        for name, values in self.heads.items():
            if not values or len(set(values)) < len(values):
                raise ConfigError(f"heads.{name}: values are needed, each once")
