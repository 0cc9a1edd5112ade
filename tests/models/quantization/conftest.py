"""Small random models of the five layouts, of sizes that every number format can store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from kilonova.models.decoder.config import DecoderConfig
from kilonova.models.decoder.model import Decoder

_SHAPE: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,
}
LAYOUTS: dict[str, dict[str, Any]] = {
    "llama": {"attention_bias": True},
    "mistral": {"sliding_window": 7},
    "qwen2": {"tie_word_embeddings": True, "use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
    "qwen3": {
        "tie_word_embeddings": True,
        "use_sliding_window": True,
        "sliding_window": 6,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    },
    "qwen3_moe": {"num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "mlp_only_layers": [1]},
}


@pytest.fixture
def make_decoder() -> Callable[..., Decoder]:
    """Makes the random model of a layout, in a dtype."""

    def make(layout: str, dtype: torch.dtype = torch.float32) -> Decoder:
        decoder = Decoder(DecoderConfig.from_hf({**_SHAPE, "model_type": layout, **LAYOUTS[layout]}))
        decoder.init_weights(torch.Generator().manual_seed(0))
        return decoder.to(dtype).eval()

    return make


@pytest.fixture(params=LAYOUTS)
def layout(request: pytest.FixtureRequest) -> str:
    """Each layout in turn."""
    return request.param


@pytest.fixture
def input_ids() -> torch.Tensor:
    return torch.randint(97, (2, 40), generator=torch.Generator().manual_seed(1))
