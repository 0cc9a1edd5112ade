"""`kilonova train`: run a training recipe, and look at what runs did."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from kilonova.cli.train_export import export
from kilonova.cli.train_plan import plan
from kilonova.cli.train_report import report
from kilonova.cli.train_scaling import scaling
from kilonova.core.errors import ConfigError


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
    nproc_per_node: Annotated[int, typer.Option(min=1, help="Ranks to start on this machine, as torchrun would.")] = 1,
    max_restarts: Annotated[
        int, typer.Option(min=0, help="How often to start again after a process dies or hangs.")
    ] = 0,
) -> None:
    """Run a recipe, from its newest checkpoint if there is one. The word `run` may be left out.

    Example: kilonova train micro/pretrain optimizer.lr=6e-4 output=runs/mine

    On several devices, going on after faults: kilonova train my-recipe.yaml --nproc-per-node 8 --max-restarts 20

    On several machines: torchrun --nnodes 4 --nproc-per-node 8 --max-restarts 20 ... -m kilonova train my-recipe.yaml
    """
    supervised = (nproc_per_node, max_restarts) != (1, 0)
    if supervised and "RANK" in os.environ:
        raise ConfigError("--nproc-per-node and --max-restarts: give them to torchrun, which started this process")
    from kilonova.recipes import find_recipe

    path = find_recipe(recipe)

    if supervised:
        from kilonova.train.supervisor import supervise

        directory = supervise(path, overrides or [], processes=nproc_per_node, max_restarts=max_restarts)
    else:
        from kilonova.train.run import train as run_training

        directory = run_training(path, overrides or [])
    # Of the processes that torchrun starts, one speaks.
    if os.environ.get("RANK", "0") == "0":
        print(directory)


for command in (plan, scaling, report, export):
    app.command(no_args_is_help=True)(command)
