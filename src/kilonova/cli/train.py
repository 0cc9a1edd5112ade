"""`kilonova train`: run a training recipe."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer()


@app.command(no_args_is_help=True)
def train(
    recipe: Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped recipe such as micro/pretrain.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Values that replace the recipe's own.")
    ] = None,
) -> None:
    """Train a model as a recipe says; run it again to go on where it stopped.

    Example: kilonova train micro/pretrain optimizer.lr=6e-4 output=runs/mine
    """
    from kilonova.recipes import find_recipe

    path = find_recipe(recipe)

    from kilonova.train.run import train as run_training

    print(run_training(path, overrides or []))
