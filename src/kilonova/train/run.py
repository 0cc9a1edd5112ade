"""From a recipe to a trained checkpoint."""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from kilonova.core.config import load_config
from kilonova.core.errors import ConfigError
from kilonova.core.files import write_atomic
from kilonova.data.packing import ConcatenatedRows, PackedRows, RowDataset
from kilonova.data.sources import Source
from kilonova.data.tokens import TokenizedSource, tokenize_source, tokenizer_fingerprint
from kilonova.models.checkpoint import load_decoder, save_decoder
from kilonova.models.decoder.config import DecoderConfig
from kilonova.models.decoder.model import Decoder
from kilonova.recipes import find_recipe
from kilonova.text.bpe import END_OF_TEXT
from kilonova.text.tokenizer import Tokenizer
from kilonova.train.recipe import TrainRecipe
from kilonova.train.trainer import Trainer

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def train(name: str | Path, overrides: Sequence[str] = ()) -> Path:
    """Train as the recipe says, resuming if its output folder holds a checkpoint; returns the model directory.

    The output folder gets `checkpoints/`, `log.jsonl`, and at the end `model/`, a Hugging Face directory, with
    `training.json`, the record a model card is made from.
    """
    path = find_recipe(name)
    recipe = load_config(TrainRecipe, path, overrides)
    output = Path(recipe.output)
    output.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.seed)

    tokenizer_directory = Path(recipe.model.init_from or recipe.model.tokenizer or "")
    tokenizer = Tokenizer.from_directory(tokenizer_directory)
    fingerprint = tokenizer_fingerprint(tokenizer_directory)

    def read(source: Source) -> TokenizedSource:
        return tokenize_source(source, recipe.data.root, tokenizer, fingerprint, recipe.data.cache)

    sources = [read(source) for source in recipe.data.sources]
    rows = PackedRows if recipe.objective == "sft" else ConcatenatedRows
    length = recipe.data.sequence_length
    dataset = rows(sources, [source.weight for source in recipe.data.sources], length, recipe.seed)
    validation: dict[str, RowDataset] = {
        source.name: rows([read(source)], [source.weight], length, recipe.seed) for source in recipe.data.validation
    }
    model = _model(recipe, tokenizer)
    if not model.config.eos_token_ids:
        model.config = replace(model.config, **_token_ids(tokenizer))
    trainer = Trainer(recipe, model, dataset, validation)
    trainer.train()

    directory = output / "model"
    save_decoder(model, directory, dtype=getattr(torch, recipe.save_dtype))
    for file in _TOKENIZER_FILES:
        if (tokenizer_directory / file).exists():
            shutil.copyfile(tokenizer_directory / file, directory / file)
    record = _training_record(recipe, path.stem, trainer, sources, dataset)
    record["earlier"] = _earlier_record(recipe)
    write_atomic(directory / "training.json", json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    return directory


def _model(recipe: TrainRecipe, tokenizer: Tokenizer) -> Decoder:
    if recipe.model.init_from is not None:
        return load_decoder(recipe.model.init_from, dtype=torch.float32)
    shape = dict(recipe.model.config or {})
    shape.setdefault("vocab_size", tokenizer.vocab_size)
    if shape["vocab_size"] < tokenizer.vocab_size:
        raise ConfigError(f"model.config.vocab_size: must be at least the tokenizer's {tokenizer.vocab_size}")
    model = Decoder(DecoderConfig.from_hf(shape))
    model.init_weights(torch.Generator().manual_seed(recipe.seed))
    return model


def _token_ids(tokenizer: Tokenizer) -> dict[str, Any]:
    """The tokens that end a generation, and the one that pads, for readers of the checkpoint."""
    end_of_text = tokenizer.token_id(END_OF_TEXT)
    ends = [tokenizer.eos_token_id] + ([] if end_of_text is None else [end_of_text])
    return {"eos_token_ids": tuple(ends), "pad_token_id": ends[-1]}


def _training_record(
    recipe: TrainRecipe, name: str, trainer: Trainer, sources: Sequence[TokenizedSource], dataset: RowDataset
) -> dict[str, Any]:
    """What was trained on what, for how long, at which cost."""
    flops = trainer.model.flops_per_token(recipe.data.sequence_length)
    return {
        "recipe": name,
        "objective": recipe.objective,
        "parameters": trainer.model.num_parameters(),
        "steps": trainer.step,
        "tokens": trainer.tokens,
        "rows_in_one_pass": len(dataset),
        "sequence_length": recipe.data.sequence_length,
        "flops": flops * trainer.tokens,
        "seconds": round(trainer.seconds, 1),
        "device": torch.cuda.get_device_name(trainer.device) if trainer.device.type == "cuda" else platform.machine(),
        "dtype": str(trainer.dtype).removeprefix("torch."),
        "torch": torch.__version__,
        "validation_loss": trainer.evaluate(),
        "sources": [
            asdict(source)
            | {"tokens": len(tokens.tokens), "documents": len(tokens.offsets) - 1, "bytes": tokens.num_bytes}
            for source, tokens in zip(recipe.data.sources, sources, strict=True)
        ],
    }


def _earlier_record(recipe: TrainRecipe) -> dict[str, Any] | None:
    if recipe.model.init_from is None:
        return None
    path = Path(recipe.model.init_from) / "training.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
