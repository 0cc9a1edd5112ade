"""From a recipe to a trained checkpoint."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch

from kilonova.core.config import save_config
from kilonova.core.device import choose_device
from kilonova.core.errors import CheckpointError
from kilonova.recipes import find_recipe
from kilonova.train.build import build_run, load_recipe
from kilonova.train.checkpoint.folder import CheckpointFolder
from kilonova.train.checkpoint.state import load_weights
from kilonova.train.export import Progress, export_model
from kilonova.train.goodput.ledger import Ledger
from kilonova.train.parallel.mesh import local_device, parallel_mesh
from kilonova.train.trainer import Trainer


def train(name: str | Path, overrides: Sequence[str] = ()) -> Path:
    """Train as the recipe says, resuming if its output folder holds a checkpoint; returns the model directory.

    The output folder gets `recipe.yaml`, `checkpoints/`, `log.jsonl`, `ledger/`, and at the end `model/` in its
    ecosystem's layout, with `training.json`, the record a model card is made from.
    """
    path = find_recipe(name)
    recipe = load_recipe(path, overrides)
    rank = os.environ.get("RANK", "0")
    with Ledger(Path(recipe.output) / "ledger" / f"rank-{rank}.jsonl") as ledger:
        ledger.enter("rendezvous")
        with parallel_mesh(recipe.parallel, local_device(choose_device(recipe.device))) as mesh:
            ledger.enter("build")
            if rank == "0":
                save_config(recipe, Path(recipe.output) / "recipe.yaml")
            torch.manual_seed(recipe.seed)
            context, objective = build_run(recipe, mesh, ledger)
            trainer = Trainer(context, objective)
            ledger.enter("idle")
            trainer.train()
            ledger.enter("export")
            progress = Progress(trainer.step, trainer.tokens, trainer.seconds, trainer.skipped_steps)
            return export_model(path.stem, context, objective, progress, Path(recipe.output) / "model")


def export_checkpoint(run: str | Path, directory: Path, step: int | None = None) -> Path:
    """Write the model of a checkpoint, the newest unless `step` is given, as `train` writes the last one.

    `run` is a run's output folder, or the recipe of one. Everything the recipe names must still be where it was.
    """
    run = Path(run)
    recipe = load_recipe(run / "recipe.yaml" if run.is_dir() else find_recipe(run))
    checkpoints = CheckpointFolder((run if run.is_dir() else Path(recipe.output)) / "checkpoints")
    steps = checkpoints.steps()
    if not steps or (step is not None and step not in steps):
        raise CheckpointError(f"{checkpoints.path} holds no checkpoint of step {step}; there are: {steps or 'none'}")
    step = steps[-1] if step is None else step
    manifest = checkpoints.manifest(step)
    if damaged := checkpoints.damaged(step, manifest.files):
        raise CheckpointError(f"{checkpoints.checkpoint(step)} is corrupt ({', '.join(damaged)}); take another step")
    torch.manual_seed(recipe.seed)
    context, objective = build_run(recipe.alone())
    load_weights(checkpoints.checkpoint(step), objective.trained)
    done = manifest.run
    progress = Progress(step, done["tokens"], done["seconds"], done["skipped_steps"])
    return export_model(run.resolve().stem, context, objective, progress, directory)
