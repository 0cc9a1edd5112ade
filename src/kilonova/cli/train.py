"""`kilonova train`: run a training recipe, and look at what runs did."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from kilonova.cli.train_scaling import scaling


class _RecipeGroup(TyperGroup):
    """`kilonova train RECIPE` is short for `kilonova train run RECIPE`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["run", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(cls=_RecipeGroup, no_args_is_help=True)


@app.callback()
def train() -> None:
    """Train a model as a recipe says; run it again to go on where it stopped.

    Example: kilonova train micro/pretrain optimizer.lr=6e-4 output=runs/mine
    """


@app.command(no_args_is_help=True)
def run(
    recipe: Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped recipe such as micro/pretrain.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Values that replace the recipe's own.")
    ] = None,
) -> None:
    """Run a recipe, from its newest checkpoint if there is one. The word `run` may be left out.

    Example: kilonova train micro/pretrain optimizer.lr=6e-4 output=runs/mine
    """
    from kilonova.recipes import find_recipe

    path = find_recipe(recipe)

    from kilonova.train.run import train as run_training

    print(run_training(path, overrides or []))


app.command(no_args_is_help=True)(scaling)
