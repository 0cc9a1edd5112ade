"""Configuration and sizes of the segmenter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kilonova.core.errors import ConfigError
from kilonova.models.component_config import ComponentConfig

Queries = Literal["mixed", "learnable", "conditional"]


@dataclass(frozen=True, kw_only=True)
class MixedQuerySegmenterConfig(ComponentConfig):
    """Shape of a segmenter with mixed queries (arXiv 2404.04469).

    Pictures are taken at about `sample_size` squared pixels. `block_out_channels` are those at a half, a quarter and an
    eighth of the resolution, each of `layers_per_block` residual blocks with norms of `norm_num_groups`; `hidden_size`
    is that of the tokens at a sixteenth, of which `num_encoder_layers` see the picture alone, `num_fusion_layers`
    picture and words together, and `num_decoder_layers` are of the queries. Of the `num_queries`, half are learnable
    and half conditional if `queries` is "mixed", else all are of one sort. Impossible values are a ConfigError.
    """

    sample_size: int = 128
    block_out_channels: tuple[int, int, int] = (32, 48, 96)
    layers_per_block: int = 1
    norm_num_groups: int = 8
    hidden_size: int = 160
    num_attention_heads: int = 5
    mlp_ratio: int = 4
    num_encoder_layers: int = 2
    num_fusion_layers: int = 2
    num_decoder_layers: int = 4
    queries: Queries = "mixed"
    num_queries: int = 32
    text_hidden_size: int = 128
    rope_theta: float = 100.0

    def __post_init__(self) -> None:
        self._require_positive(
            "sample_size",
            "block_out_channels",
            "layers_per_block",
            "norm_num_groups",
            "hidden_size",
            "num_attention_heads",
            "mlp_ratio",
            "num_fusion_layers",
            "num_decoder_layers",
            "num_queries",
            "text_hidden_size",
        )
        self._require_multiple("sample_size", 16, "as tokens are 16 pixels wide")
        self._require_multiple("block_out_channels", self.norm_num_groups, "norm_num_groups")
        self._require_multiple(
            "hidden_size", 4 * self.num_attention_heads, "as each head turns pairs by row and by column"
        )
        if self.num_encoder_layers < 0:
            raise ConfigError(f"num_encoder_layers: {self.num_encoder_layers} is less than 0")
        if self.queries == "mixed" and self.num_queries % 2:
            raise ConfigError(f"num_queries: {self.num_queries} is odd; half of mixed queries are of each sort")

    @property
    def num_learnable_queries(self) -> int:
        """How many queries are the same for every picture; they come first."""
        return {"mixed": self.num_queries // 2, "learnable": self.num_queries, "conditional": 0}[self.queries]

    @property
    def num_conditional_queries(self) -> int:
        """How many queries come from a picture and the words it is asked for."""
        return self.num_queries - self.num_learnable_queries


SEGMENTER_PRESETS = {
    "cpu": MixedQuerySegmenterConfig(),
    "small": MixedQuerySegmenterConfig(
        block_out_channels=(48, 96, 192),
        layers_per_block=2,
        hidden_size=384,
        num_attention_heads=6,
        num_encoder_layers=6,
        num_fusion_layers=4,
        num_decoder_layers=6,
        num_queries=64,
        text_hidden_size=256,
    ),
}
