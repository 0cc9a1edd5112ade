"""`kilonova train export`: a checkpoint as a model that other programs open."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export(
    run: Annotated[str, typer.Argument(metavar="RECIPE_OR_RUN_FOLDER", help="A recipe, or the folder a run wrote to.")],
    output: Annotated[Path, typer.Option(help="Folder to write the model to.")],
    step: Annotated[int | None, typer.Option(min=1, help="Take this checkpoint; the newest unless given.")] = None,
) -> None:
    """Write any checkpoint of a run as a Hugging Face directory, as a run does with its last one.

    Example: kilonova train export runs/mine --step 2000 --output exported/
    """
    from kilonova.train.run import export_checkpoint

    print(export_checkpoint(run, output, step))
