"""Random decoders of shapes that the native kernels run."""

from __future__ import annotations

from typing import Any

import torch

from kilonova.models.decoder.config import DecoderConfig
from kilonova.models.decoder.model import Decoder


def random_decoder(**changes: Any) -> Decoder:
    """A float32 decoder of two layers over 101 tokens, the same each time, with `changes` of its configuration."""
    fields = {
        "vocab_size": 101,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "max_position_embeddings": 2048,
    }
    model = Decoder(DecoderConfig(**{**fields, **changes}))
    generator = torch.Generator().manual_seed(0)
    model.init_weights(generator)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(parameter * 6 if parameter.ndim == 2 else parameter + 0.2 * noise)
    return model.eval()
