"""`kilonova train plan`: which activations a run can afford to keep."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from kilonova.train.memory.plan import MemoryPlan

GIB = 2**30


def plan(
    source: Annotated[
        str, typer.Argument(metavar="RECIPE_OR_MODEL_DIR", help="A recipe, or the directory of a checkpoint.")
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Values that replace the recipe's own.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Rows of a micro-batch, instead of the recipe's (1 for a checkpoint).")
    ] = None,
    sequence_length: Annotated[
        int | None, typer.Option(min=2, help="Positions of a row, instead of the recipe's (4096 for a checkpoint).")
    ] = None,
    ranks: Annotated[
        int | None, typer.Option(min=1, help="Processes that share weights, gradients and optimiser states (FSDP2).")
    ] = None,
    budget_gib: Annotated[float | None, typer.Option(min=0, help="Memory of one device, in GiB.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """Predict memory and recomputation of each policy of the recipe's `memory`, and pick the fastest that fits.

    Example: kilonova train plan my-recipe.yaml --batch-size 64 --budget-gib 80
    """
    from dataclasses import asdict

    from kilonova.train.memory.plan import plan_memory

    if Path(source).is_dir():
        config, options = _model_of_directory(Path(source))
    else:
        config, options = _model_of_recipe(source, overrides or [])
    if batch_size is not None:
        options["batch_size"] = batch_size
    if sequence_length is not None:
        options["sequence_length"] = sequence_length
    if ranks is not None:
        options["ranks"] = ranks
    budget_bytes = None if budget_gib is None else int(budget_gib * GIB)
    found = plan_memory(config, **options, budget_bytes=budget_bytes)
    if as_json:
        print(json.dumps(asdict(found)))
        return
    _print(found, options, budget_gib)


def _model_of_directory(directory: Path) -> tuple[Any, dict[str, Any]]:
    from kilonova.models.checkpoint import load_config

    config = load_config(directory)
    return config, {"batch_size": 1, "sequence_length": min(4096, config.max_position_embeddings)}


def _model_of_recipe(name: str, overrides: list[str]) -> tuple[Any, dict[str, Any]]:
    import torch

    from kilonova.core import config as configuration
    from kilonova.core.errors import ConfigError
    from kilonova.models.checkpoint import load_config
    from kilonova.models.decoder.config import DecoderConfig
    from kilonova.recipes import find_recipe
    from kilonova.text.tokenizer import Tokenizer
    from kilonova.train.recipe import TrainRecipe

    recipe = configuration.load_config(TrainRecipe, find_recipe(name), overrides)
    if recipe.adapter is not None:
        raise ConfigError("adapter: the plan is for training all weights")
    for dimension in ("tensor", "context", "expert"):
        if getattr(recipe.parallel, dimension) > 1:
            raise ConfigError(f"parallel.{dimension}: the plan knows data-parallel ranks only")
    if recipe.model.init_from is not None:
        config = load_config(Path(recipe.model.init_from))
    else:
        shape = dict(recipe.model.config or {})
        if "vocab_size" not in shape:
            shape["vocab_size"] = Tokenizer.from_directory(Path(recipe.model.tokenizer or "")).vocab_size
        config = DecoderConfig.from_hf(shape)
    return config, {
        "batch_size": recipe.micro_batch_size,
        "sequence_length": recipe.data.sequence_length,
        "dtype": torch.float32 if recipe.dtype == "float32" else torch.bfloat16,
        "compiled": recipe.compile,
        "optimizer": recipe.optimizer.name,
        "ranks": max(1, recipe.parallel.data_parallel_shard),
    }


def _print(found: MemoryPlan, options: dict[str, Any], budget_gib: float | None) -> None:
    from rich.console import Console
    from rich.table import Table

    rows = f"{options['batch_size']} x {options['sequence_length']}"
    table = Table(title=f"{found.parameters / 1e6:,.1f} M parameters, micro-batches of {rows} tokens")
    columns = ("memory", "layer, token", "activations", "loss", "total", "again")
    for heading in columns:
        table.add_column(heading, justify="left" if heading == "memory" else "right", no_wrap=heading == "memory")
    for policy in found.policies:
        table.add_row(
            policy.policy if policy.exact else f"{policy.policy}, inexact",
            f"{policy.layer_bytes / 1024:.1f} KiB",
            *(_size(size) for size in (policy.activation_bytes, policy.loss_bytes, policy.total_bytes)),
            f"{policy.recomputed:.1%}",
        )
    console = Console()
    console.print(table)
    console.print(f"weights, gradients and optimiser states: {_size(found.state_bytes)}")
    plain = found.policies[0].plain_loss_bytes
    console.print(f"a loss that makes the logits of all positions at once would take {_size(plain)}")
    if budget_gib is None:
        return
    if found.chosen is None:
        console.print(f"nothing fits into {budget_gib:g} GiB: try smaller micro-batches or more ranks")
    else:
        console.print(f"the fastest that fits into {budget_gib:g} GiB: memory: {found.chosen}")


def _size(size: int) -> str:
    return f"{size / GIB:.2f} GiB" if size >= GIB / 10 else f"{size / 2**20:.1f} MiB"
