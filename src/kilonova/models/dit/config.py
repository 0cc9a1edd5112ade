"""Configuration of the cross-attention diffusion transformer."""

from __future__ import annotations

from dataclasses import dataclass

from kilonova.models.backbone import Prediction
from kilonova.models.component_config import ComponentConfig


@dataclass(frozen=True, kw_only=True)
class DiTConfig(ComponentConfig):
    """Shape of a cross-attention DiT (arXiv 2310.00426); fields are those of `UViTConfig`, any depth is allowed."""

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
        self._require_multiple(
            "hidden_size", 4 * self.num_attention_heads, "as each head turns pairs by row and by column"
        )


DIT_PRESETS = {
    "tiny": DiTConfig(hidden_size=256, num_hidden_layers=7, num_attention_heads=4),
    "small": DiTConfig(hidden_size=384, num_hidden_layers=10, num_attention_heads=6),
    "base": DiTConfig(hidden_size=512, num_hidden_layers=13, num_attention_heads=8),
    "0.6b": DiTConfig(hidden_size=1152, num_hidden_layers=28, num_attention_heads=16),
}
