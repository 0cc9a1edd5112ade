"""A run that trains a language model, before its first step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from kilonova.core.errors import ConfigError
from kilonova.models.adapter import attach_adapter
from kilonova.models.checkpoint import load_decoder
from kilonova.models.decoder.config import DecoderConfig
from kilonova.models.decoder.model import Decoder
from kilonova.nn.quantized import num_quantized_weights
from kilonova.text.bpe import END_OF_TEXT
from kilonova.text.tokenizer import Tokenizer
from kilonova.train.language_context import LanguageContext
from kilonova.train.memory.section import ActivationMemory
from kilonova.train.parallel.mesh import ParallelMesh
from kilonova.train.placed import PlacedDecoder
from kilonova.train.recipe import TrainRecipe


def language_context(recipe: TrainRecipe, mesh: ParallelMesh | None = None) -> LanguageContext:
    """Read the tokenizer and settle device, number format and threads."""
    directory = Path(recipe.model.init_from or recipe.model.tokenizer or "")
    tokenizer = Tokenizer.from_directory(directory)
    return LanguageContext.settle(recipe, mesh, tokenizer=tokenizer, tokenizer_directory=directory)


def place_decoder(context: LanguageContext) -> PlacedDecoder:
    """The decoder a run starts from, with its adapter if the recipe has one, where and as the recipe computes it."""
    recipe = context.recipe
    decoder = starting_decoder(context)
    if recipe.adapter is not None:
        attach_adapter(decoder, recipe.adapter, torch.Generator().manual_seed(recipe.seed))
    memory = ActivationMemory(recipe.memory, recipe.memory_budget, recipe.data.sequence_length)
    return PlacedDecoder(decoder, context.device, context.dtype, recipe.compile, context.mesh, memory)


def starting_decoder(context: LanguageContext) -> Decoder:
    """The model the recipe starts from, in float32 on the CPU."""
    section, tokenizer = context.recipe.model, context.tokenizer
    if section.init_from is not None:
        decoder = load_decoder(section.init_from, dtype=torch.float32)
        if num_quantized_weights(decoder):
            raise ConfigError(f"model.init_from: {section.init_from} is quantised; train what it was made from")
    else:
        shape = dict(section.config or {})
        shape.setdefault("vocab_size", tokenizer.vocab_size)
        if shape["vocab_size"] < tokenizer.vocab_size:
            raise ConfigError(f"model.config.vocab_size: must be at least the tokenizer's {tokenizer.vocab_size}")
        decoder = Decoder(DecoderConfig.from_hf(shape))
        decoder.init_weights(torch.Generator().manual_seed(context.recipe.seed))
    if not decoder.config.eos_token_ids:
        decoder.config = replace(decoder.config, **_token_ids(tokenizer))
    return decoder


def _token_ids(tokenizer: Tokenizer) -> dict[str, Any]:
    """The tokens that end a generation, and the one that pads, for readers of the checkpoint."""
    end_of_text = tokenizer.token_id(END_OF_TEXT)
    ends = [tokenizer.eos_token_id] + ([] if end_of_text is None else [end_of_text])
    return {"eos_token_ids": tuple(ends), "pad_token_id": ends[-1]}
