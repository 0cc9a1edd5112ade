"""Checkpoints as engines want them."""

from __future__ import annotations

from pathlib import Path

import torch

from kilonova.engine.native.library import instruction_sets
from kilonova.models.checkpoint import load_decoder
from kilonova.models.decoder.model import Decoder


def load_for_engine(directory: str | Path, compute_dtype: torch.dtype, device: torch.device) -> Decoder:
    """The decoder, in bfloat16 where it is stored so and the kernels of a CPU compute with it in float32."""
    if device.type == "cpu" and compute_dtype == torch.float32 and instruction_sets():
        model = load_decoder(directory, device=device)
        return model if model.model.embed_tokens.weight.dtype == torch.bfloat16 else model.to(compute_dtype)
    return load_decoder(directory, dtype=compute_dtype, device=device)
