"""From a recipe to a trained checkpoint."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from kilonova.core.config import load_config, save_config
from kilonova.core.device import choose_device, choose_dtype
from kilonova.core.errors import CheckpointError, ConfigError
from kilonova.models.adapter import attach_adapter
from kilonova.models.checkpoint import load_decoder
from kilonova.models.decoder.config import DecoderConfig
from kilonova.models.decoder.model import Decoder
from kilonova.nn.quantized import num_quantized_weights
from kilonova.recipes import find_recipe
from kilonova.text.bpe import END_OF_TEXT
from kilonova.text.tokenizer import Tokenizer
from kilonova.train.build import build_objective
from kilonova.train.checkpoint.folder import CheckpointFolder
from kilonova.train.checkpoint.state import load_weights
from kilonova.train.context import RunContext
from kilonova.train.export import Progress, export_model
from kilonova.train.goodput.ledger import Ledger
from kilonova.train.memory.section import ActivationMemory
from kilonova.train.parallel.mesh import ParallelMesh, local_device, parallel_mesh
from kilonova.train.parallel.section import ParallelSection
from kilonova.train.placed import PlacedDecoder
from kilonova.train.recipe import TrainRecipe
from kilonova.train.trainer import Trainer


def train(name: str | Path, overrides: Sequence[str] = ()) -> Path:
    """Train as the recipe says, resuming if its output folder holds a checkpoint; returns the model directory.

    The output folder gets `recipe.yaml`, `checkpoints/`, `log.jsonl`, `ledger/`, and at the end `model/`, a Hugging
    Face directory, with `training.json`, the record a model card is made from.
    """
    path = find_recipe(name)
    recipe = load_config(TrainRecipe, path, overrides)
    rank = os.environ.get("RANK", "0")
    with Ledger(Path(recipe.output) / "ledger" / f"rank-{rank}.jsonl") as ledger:
        ledger.enter("rendezvous")
        with parallel_mesh(recipe.parallel, local_device(choose_device(recipe.device))) as mesh:
            ledger.enter("build")
            if rank == "0":
                save_config(recipe, Path(recipe.output) / "recipe.yaml")
            torch.manual_seed(recipe.seed)
            context = replace(run_context(recipe, mesh), ledger=ledger)
            trainer = Trainer(context, build_objective(context, place_decoder(context)))
            ledger.enter("idle")
            trainer.train()
            ledger.enter("export")
            progress = Progress(trainer.step, trainer.tokens, trainer.seconds, trainer.skipped_steps)
            return export_model(path.stem, context, trainer.objective, progress, Path(recipe.output) / "model")


def export_checkpoint(run: str | Path, directory: Path, step: int | None = None) -> Path:
    """Write the model of a checkpoint, the newest unless `step` is given, as `train` writes the last one.

    `run` is a run's output folder, or the recipe of one. Everything the recipe names must still be where it was.
    """
    run = Path(run)
    recipe = load_config(TrainRecipe, run / "recipe.yaml" if run.is_dir() else find_recipe(run))
    checkpoints = CheckpointFolder((run if run.is_dir() else Path(recipe.output)) / "checkpoints")
    steps = checkpoints.steps()
    if not steps or (step is not None and step not in steps):
        raise CheckpointError(f"{checkpoints.path} holds no checkpoint of step {step}; there are: {steps or 'none'}")
    step = steps[-1] if step is None else step
    manifest = checkpoints.manifest(step)
    if damaged := checkpoints.damaged(step, manifest.files):
        raise CheckpointError(f"{checkpoints.checkpoint(step)} is corrupt ({', '.join(damaged)}); take another step")
    whole = replace(recipe, parallel=ParallelSection(), compile=False, device="cpu", memory="none", memory_budget=None)
    context = run_context(whole)
    torch.manual_seed(recipe.seed)
    objective = build_objective(context, place_decoder(context))
    load_weights(checkpoints.checkpoint(step), objective.trained)
    done = manifest.run
    progress = Progress(step, done["tokens"], done["seconds"], done["skipped_steps"])
    return export_model(run.resolve().stem, context, objective, progress, directory)


def place_decoder(context: RunContext) -> PlacedDecoder:
    """The decoder a run starts from, with its adapter if the recipe has one, where and as the recipe computes it."""
    recipe = context.recipe
    decoder = starting_decoder(context)
    if recipe.adapter is not None:
        attach_adapter(decoder, recipe.adapter, torch.Generator().manual_seed(recipe.seed))
    memory = ActivationMemory(recipe.memory, recipe.memory_budget, recipe.data.sequence_length)
    return PlacedDecoder(decoder, context.device, context.dtype, recipe.compile, context.mesh, memory)


def run_context(recipe: TrainRecipe, mesh: ParallelMesh | None = None) -> RunContext:
    """Read the tokenizer and settle device, number format and threads."""
    device = local_device(choose_device(recipe.device))
    if recipe.threads is not None:
        torch.set_num_threads(recipe.threads)
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    directory = Path(recipe.model.init_from or recipe.model.tokenizer or "")
    tokenizer = Tokenizer.from_directory(directory)
    context = RunContext(recipe, tokenizer, directory, device, choose_dtype(recipe.dtype, device))
    if mesh is None:
        return context
    if recipe.batch_size % (mesh.num_data_ranks * recipe.micro_batch_size):
        raise ConfigError(
            f"batch_size: {recipe.batch_size} is not a multiple of {mesh.num_data_ranks} data-parallel ranks x "
            f"micro_batch_size {recipe.micro_batch_size}"
        )
    return replace(context, rank=mesh.data_rank, num_ranks=mesh.num_data_ranks, mesh=mesh)


def starting_decoder(context: RunContext) -> Decoder:
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
