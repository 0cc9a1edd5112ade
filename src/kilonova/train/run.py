"""From a recipe to a trained checkpoint."""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from kilonova.core.config import load_config
from kilonova.core.device import choose_device, choose_dtype
from kilonova.core.errors import ConfigError
from kilonova.core.files import write_atomic
from kilonova.models.checkpoint import load_decoder
from kilonova.models.decoder.config import DecoderConfig
from kilonova.models.decoder.model import Decoder
from kilonova.recipes import find_recipe
from kilonova.text.bpe import END_OF_TEXT
from kilonova.text.tokenizer import Tokenizer
from kilonova.train.build import build_objective
from kilonova.train.context import RunContext
from kilonova.train.placed import PlacedDecoder
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

    context = run_context(recipe)
    model = PlacedDecoder(starting_decoder(context), context.device, context.dtype, recipe.compile)
    objective = build_objective(context, model)
    trainer = Trainer(context, objective)
    trainer.train()

    directory = output / "model"
    objective.export(directory)
    for file in _TOKENIZER_FILES:
        if (context.tokenizer_directory / file).exists():
            shutil.copyfile(context.tokenizer_directory / file, directory / file)
    record = _training_record(path.stem, trainer)
    record["earlier"] = _earlier_record(recipe)
    write_atomic(directory / "training.json", json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    return directory


def run_context(recipe: TrainRecipe) -> RunContext:
    """Read the tokenizer and settle device, number format and threads."""
    device = choose_device(recipe.device)
    if recipe.threads is not None:
        torch.set_num_threads(recipe.threads)
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    directory = Path(recipe.model.init_from or recipe.model.tokenizer or "")
    tokenizer = Tokenizer.from_directory(directory)
    return RunContext(recipe, tokenizer, directory, device, choose_dtype(recipe.dtype, device))


def starting_decoder(context: RunContext) -> Decoder:
    """The model the recipe starts from, in float32 on the CPU."""
    section, tokenizer = context.recipe.model, context.tokenizer
    if section.init_from is not None:
        decoder = load_decoder(section.init_from, dtype=torch.float32)
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


def _training_record(name: str, trainer: Trainer) -> dict[str, Any]:
    """What was trained on what, for how long, at which cost."""
    recipe, objective = trainer.recipe, trainer.objective
    return {
        "recipe": name,
        "objective": recipe.objective,
        "parameters": sum(parameter.numel() for parameter in objective.trained.parameters()),
        "steps": trainer.step,
        "tokens": trainer.tokens,
        "sequence_length": recipe.data.sequence_length,
        "flops": objective.flops_per_token * trainer.tokens,
        "seconds": round(trainer.seconds, 1),
        "device": torch.cuda.get_device_name(trainer.device) if trainer.device.type == "cuda" else platform.machine(),
        "dtype": str(trainer.dtype).removeprefix("torch."),
        "torch": torch.__version__,
        "validation_loss": objective.evaluate(),
        **objective.data_record(),
    }


def _earlier_record(recipe: TrainRecipe) -> dict[str, Any] | None:
    if recipe.model.init_from is None:
        return None
    path = Path(recipe.model.init_from) / "training.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
