"""What a run leaves in the ecosystem's layout, with the record a model card is made from."""

from __future__ import annotations

import json
import platform
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from kilonova.core.files import write_atomic
from kilonova.models.adapter import save_adapter
from kilonova.models.decoder.model import Decoder
from kilonova.train.context import RunContext
from kilonova.train.objective import Objective
from kilonova.train.parallel.gather import whole_parameters
from kilonova.train.recipe import TrainRecipe

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


@dataclass(frozen=True)
class Progress:
    """How far a run has come: optimiser steps, positions, seconds of training, steps whose update was dropped."""

    steps: int
    tokens: int
    seconds: float
    skipped_steps: int


def export_model(name: str, context: RunContext, objective: Objective, progress: Progress, directory: Path) -> Path:
    """Write model, tokenizer and record of the run `name` to `directory`; returns `directory`. All ranks must call."""
    recipe = context.recipe
    record = _record(name, context, objective, progress)
    with whole_parameters(objective.trained, context.mesh) as main:
        if not main:
            return directory
        if recipe.adapter is None or recipe.adapter.merge:
            objective.export(directory)
        else:
            decoder = next(module for module in objective.trained.modules() if isinstance(module, Decoder))
            save_adapter(decoder, directory, str(recipe.model.init_from), getattr(torch, recipe.save_dtype))
    for file in _TOKENIZER_FILES:
        if (context.tokenizer_directory / file).exists():
            shutil.copyfile(context.tokenizer_directory / file, directory / file)
    write_atomic(directory / "training.json", json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    return directory


def _record(name: str, context: RunContext, objective: Objective, progress: Progress) -> dict[str, Any]:
    """What was trained on what, for how long, at which cost."""
    recipe, device = context.recipe, context.device
    return {
        "recipe": name,
        "objective": recipe.objective,
        "parameters": sum(parameter.numel() for parameter in objective.trained.parameters()),
        **_adapter_record(recipe, objective),
        "steps": progress.steps,
        "skipped_steps": progress.skipped_steps,
        "tokens": progress.tokens,
        "sequence_length": recipe.data.sequence_length,
        "flops": objective.flops_per_token * progress.tokens,
        "seconds": round(progress.seconds, 1),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "dtype": str(context.dtype).removeprefix("torch."),
        "torch": torch.__version__,
        "validation_loss": objective.evaluate(),
        **objective.data_record(),
        "earlier": _earlier_record(recipe),
    }


def _adapter_record(recipe: TrainRecipe, objective: Objective) -> dict[str, Any]:
    if recipe.adapter is None:
        return {}
    trained = sum(parameter.numel() for parameter in objective.trained.parameters() if parameter.requires_grad)
    return {"adapter": asdict(recipe.adapter), "trained_parameters": trained}


def _earlier_record(recipe: TrainRecipe) -> dict[str, Any] | None:
    if recipe.model.init_from is None:
        return None
    path = Path(recipe.model.init_from) / "training.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
