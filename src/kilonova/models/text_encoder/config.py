"""Configuration of the text transformer."""

from __future__ import annotations

from dataclasses import dataclass

from kilonova.models.component_config import ComponentConfig


@dataclass(frozen=True, kw_only=True)
class TextTransformerConfig(ComponentConfig):
    """Shape of a bidirectional transformer over tokens; texts are cut to `max_position_embeddings` of them."""

    vocab_size: int
    hidden_size: int = 256
    intermediate_size: int = 768
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    max_position_embeddings: int = 256
    rope_theta: float = 10_000.0
    rms_norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        self._require_positive(
            "vocab_size",
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "max_position_embeddings",
        )
        self._require_multiple("hidden_size", 2 * self.num_attention_heads, "as each head turns pairs by position")
