"""`kilonova eval`: measure a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from kilonova.cli.eval_canvas import canvas
from kilonova.cli.extras import require_packages
from kilonova.core.files import write_atomic


class _ModelGroup(TyperGroup):
    """`kilonova eval MODEL` is short for `kilonova eval language MODEL`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["language", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(cls=_ModelGroup, no_args_is_help=True)
app.command(no_args_is_help=True)(canvas)

EXTRA_PACKAGES = ("sacrebleu", "rouge_score")


@app.callback()
def eval_() -> None:
    """Measure a model: of language, or of pictures (`kilonova eval canvas`).

    Example: kilonova eval micro --data datasets/ --task translation
    """


@app.command(no_args_is_help=True)
def language(
    model: Annotated[str, typer.Argument(help="A model's name or the directory of a checkpoint.")],
    data: Annotated[Path, typer.Option(exists=True, file_okay=False, help="Folder that holds eval/ and text/.")],
    task: Annotated[list[str] | None, typer.Option(help="Measure this task or group only; repeat for more.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Most examples a task takes.")] = 300,
    seed: Annotated[int, typer.Option(help="Decides which examples are taken.")] = 0,
    context_length: Annotated[
        int | None, typer.Option(min=2, help="Longest context to use; the model's own unless given.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="File for the report as JSON, for the model card.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """Score a model on language, classification, translation, summarisation and instructions, beside baselines.

    The word `language` may be left out.

    Example: kilonova eval micro --data datasets/ --task translation
    """
    require_packages(EXTRA_PACKAGES, "eval")

    from kilonova.cli.models import find_directory
    from kilonova.evals.run import evaluate

    report = evaluate(find_directory(model), data, tuple(task or ()), limit, seed, context_length)
    if output is not None:
        write_atomic(output, report.to_json() + "\n")
    if as_json:
        print(report.to_json())
        return

    from rich.console import Console

    Console().print(report.table())
