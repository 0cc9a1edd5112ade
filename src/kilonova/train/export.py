"""What a run leaves in the ecosystem's layout, with the record a model card is made from."""

from __future__ import annotations

import json
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from kilonova.core.files import write_atomic
from kilonova.train.context import RunContext
from kilonova.train.objective import Objective
from kilonova.train.parallel.gather import whole_parameters


@dataclass(frozen=True)
class Progress:
    """How far a run has come: optimiser steps, positions, seconds of training, steps whose update was dropped."""

    steps: int
    tokens: int
    seconds: float
    skipped_steps: int


def export_model(name: str, context: RunContext, objective: Objective, progress: Progress, directory: Path) -> Path:
    """Write model and record of the run `name` to `directory`; returns `directory`. All ranks must call."""
    record = _record(name, context, objective, progress)
    with whole_parameters(objective.trained, context.mesh) as main:
        if not main:
            return directory
        context.export(objective, directory)
    write_atomic(directory / "training.json", json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    return directory


def _record(name: str, context: RunContext, objective: Objective, progress: Progress) -> dict[str, Any]:
    """What was trained on what, for how long, at which cost."""
    device = context.device
    return {
        "recipe": name,
        "objective": context.recipe.objective,
        "parameters": sum(parameter.numel() for parameter in objective.trained.parameters()),
        "steps": progress.steps,
        "skipped_steps": progress.skipped_steps,
        "tokens": progress.tokens,
        "flops": objective.flops_per_token * progress.tokens,
        "seconds": round(progress.seconds, 1),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "dtype": str(context.dtype).removeprefix("torch."),
        "torch": torch.__version__,
        "validation_loss": objective.evaluate(),
        **objective.data_record(),
        **context.record(objective),
    }
