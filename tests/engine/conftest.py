"""Random decoders in the layouts that attention and caching tell apart, and an engine over the tiny model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from kilonova.core.types import GenerationRequest, Message, SamplingParams, TextBlock
from kilonova.engine.engine import Engine
from kilonova.models.decoder.config import DecoderConfig
from kilonova.models.decoder.model import Decoder
from kilonova.text.tokenizer import Tokenizer

_SHAPE: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 600,
}

VARIANTS: dict[str, dict[str, Any]] = {
    "llama-biased": {"model_type": "llama", "attention_bias": True},
    "llama-multi-head": {"model_type": "llama", "num_key_value_heads": 4, "tie_word_embeddings": True},
    "mistral-sliding": {"model_type": "mistral", "sliding_window": 7},
    "mistral-one-kv-head": {"model_type": "mistral", "sliding_window": None, "num_key_value_heads": 1},
    "qwen2": {"model_type": "qwen2"},
    "qwen3-yarn": {
        "model_type": "qwen3",
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 1000.0,
            "factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    },
    "qwen3-mixed-windows": {
        "model_type": "qwen3",
        "use_sliding_window": True,
        "sliding_window": 6,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    },
    "qwen3_moe": {
        "model_type": "qwen3_moe",
        "num_experts": 5,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
        "norm_topk_prob": True,
        "mlp_only_layers": [1],
    },
}


@pytest.fixture(scope="session")
def make_decoder() -> Callable[[str], Decoder]:
    """A fresh random float32 decoder of a variant, biases and norms random too."""

    def make(variant: str) -> Decoder:
        model = Decoder(DecoderConfig.from_hf({**_SHAPE, **VARIANTS[variant]}))
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                offset = 1.0 if "norm" in name else 0.0
                parameter.copy_(offset + 0.3 * torch.randn(parameter.shape, generator=generator))
        return model.eval()

    return make


@pytest.fixture(params=sorted(VARIANTS))
def decoder(request: pytest.FixtureRequest, make_decoder: Callable[[str], Decoder]) -> Decoder:
    """A decoder of every variant in turn."""
    return make_decoder(request.param)


@pytest.fixture(scope="session")
def tiny_tokenizer(tiny_tokenizer_directory: Path) -> Tokenizer:
    return Tokenizer.from_directory(tiny_tokenizer_directory)


@pytest.fixture
def tiny_decoder() -> Decoder:
    """A random decoder of two layers over the tiny tokenizer's 512 tokens, with untied embeddings."""
    shape = {**_SHAPE, "model_type": "qwen3", "vocab_size": 512, "num_hidden_layers": 2, "initializer_range": 0.2}
    model = Decoder(DecoderConfig.from_hf(shape))
    model.init_weights(torch.Generator().manual_seed(0))
    return model


@pytest.fixture(scope="session")
def engine(tiny_micro_directory: Path) -> Iterator[Engine]:
    """An engine over the tiny model, for tests that leave it idle."""
    engine = Engine.from_directory(tiny_micro_directory, dtype="float32", device="cpu")
    yield engine
    engine.close()


def chat(text: str, **sampling: Any) -> GenerationRequest:
    """A request of one user turn."""
    message = Message("user", (TextBlock(text),))
    return GenerationRequest(model="tiny", messages=(message,), sampling=SamplingParams(**sampling))


def raw(prompt: str | tuple[int, ...], **sampling: Any) -> GenerationRequest:
    """A request of a raw prompt."""
    return GenerationRequest(model="tiny", prompt=prompt, sampling=SamplingParams(**sampling))
