"""Configuration and sizes of U-ViT."""

from __future__ import annotations

from dataclasses import dataclass

from kilonova.core.errors import ConfigError
from kilonova.models.backbone import Prediction
from kilonova.models.component_config import ComponentConfig


@dataclass(frozen=True, kw_only=True)
class UViTConfig(ComponentConfig):
    """Shape of a U-ViT (arXiv 2209.12152).

    `num_hidden_layers` is odd: as many blocks before the middle one as after it, each pair joined by a long skip.
    `mlp_ratio` is the feed-forward's width in hidden sizes; `rope_theta` the base of the picture's rotary positions;
    `step_size_embeds` says whether the model takes a step size. Impossible values are a ConfigError.
    """

    in_channels: int = 16
    patch_size: int = 2
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    mlp_ratio: int = 4
    text_hidden_size: int = 256
    rope_theta: float = 100.0
    prediction: Prediction = "v"
    step_size_embeds: bool = False

    def __post_init__(self) -> None:
        self._require_positive(
            "in_channels",
            "patch_size",
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "mlp_ratio",
            "text_hidden_size",
        )
        if self.num_hidden_layers % 2 == 0:
            raise ConfigError(f"num_hidden_layers: {self.num_hidden_layers} is even; one block stands in the middle")
        self._require_multiple(
            "hidden_size", 4 * self.num_attention_heads, "as each head turns pairs by row and by column"
        )


UVIT_PRESETS = {
    "tiny": UViTConfig(hidden_size=256, num_hidden_layers=9, num_attention_heads=4),
    "small": UViTConfig(hidden_size=384, num_hidden_layers=13, num_attention_heads=6),
    "base": UViTConfig(hidden_size=512, num_hidden_layers=17, num_attention_heads=8),
    "0.3b": UViTConfig(hidden_size=1024, num_hidden_layers=21, num_attention_heads=16),
    "0.9b": UViTConfig(hidden_size=1536, num_hidden_layers=29, num_attention_heads=24),
    "2.3b": UViTConfig(hidden_size=2048, num_hidden_layers=43, num_attention_heads=32),
}
