"""`kilonova models prune`: fewer layers, neurons or heads."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated

import typer

from kilonova.cli.models_quantize import (
    Calibration,
    Data,
    Json,
    Limit,
    SequenceLength,
    Sequences,
    Task,
    Text,
    calibration_file,
)


def prune(
    model: Annotated[str, typer.Argument(help="A model's name or the directory of a checkpoint.")],
    output: Annotated[Path, typer.Argument(help="Where to write it; must be new or empty.")],
    layers: Annotated[int | None, typer.Option(help="Layers to keep: those that change their input most.")] = None,
    intermediate_size: Annotated[int | None, typer.Option(help="Neurons to keep in every feed-forward.")] = None,
    heads: Annotated[
        int | None,
        typer.Option(help="Key-value heads to keep in every layer, each with the query heads that share it."),
    ] = None,
    calibration: Calibration = "default",
    sequences: Sequences = 128,
    sequence_length: SequenceLength = 512,
    report: Annotated[bool, typer.Option(help="Measure the model before and after.")] = True,
    text: Text = None,
    data: Data = None,
    task: Task = None,
    limit: Limit = 300,
    as_json: Json = False,
) -> None:
    """Write a smaller model of the same layout, made of the parts that do most, and say how to train it back to form.

    Example: kilonova models prune micro micro-small --layers 3 --intermediate-size 512
    """
    from kilonova.cli.models import find_directory
    from kilonova.models.pruning import PruningConfig, prune_directory

    source = find_directory(model)
    config = PruningConfig(num_hidden_layers=layers, intermediate_size=intermediate_size, num_key_value_heads=heads)
    prune_directory(
        source, output, config, calibration=calibration_file(calibration), sequences=sequences, length=sequence_length
    )
    recover = recovery_command(source, output)
    found = None
    if report:
        from kilonova.evals.comparison import compare

        found = compare(
            source, output, text=text, data_root=data, tasks=tuple(task or ("classification",)), limit=limit
        )
    if as_json:
        print(json.dumps({"directory": str(output), "recover": recover, **(found.to_dict() if found else {})}))
        return
    if found is not None:
        from rich.console import Console

        Console().print(found.table())
    print(f"To recover, distil the model it was made from into it, on text of your choice:\n  {recover}")


def recovery_command(source: Path, output: Path) -> str:
    """The `kilonova train` command that has `output` learn from `source`."""
    name = output.resolve().name
    overrides = (
        "model.config=null",
        f"model.init_from={output.resolve()}",
        f"distill.teacher={source.resolve()}",
        f"output=runs/{name}",
        f"data.cache=runs/{name}/tokens",
    )
    return shlex.join(["kilonova", "train", "micro/distill", *overrides])
