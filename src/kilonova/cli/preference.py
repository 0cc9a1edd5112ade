"""`kilonova preference`: which of two answers a model prefers, and whose answers a reward model prefers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kilonova.core.errors import ConfigError
from kilonova.core.files import write_atomic

app = typer.Typer()


@app.command("preference", no_args_is_help=True)
def preference(
    model: Annotated[str, typer.Argument(help="A model's name or the directory of a checkpoint or reward model.")],
    pairs: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="Held-out pairs, one JSON object a line.")],
    against: Annotated[str | None, typer.Option(help="Compare answers with those of this model.")] = None,
    reward_model: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="What judges the answers; needed by --against.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Most pairs to take, from the start of the file.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer that is generated.")] = 128,
    output: Annotated[Path | None, typer.Option(help="File for the report as JSON.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """Measure how often a model prefers the chosen answer, or how often its own answers win, with 95 % intervals.

    Example: kilonova preference runs/micro/reward/model --pairs runs/micro/preferences_val.jsonl
    """
    if (against is None) != (reward_model is None):
        raise ConfigError("--against and --reward-model: give both, to compare answers, or neither")

    from kilonova.cli.models import find_directory
    from kilonova.evals.preference import measure, win_rate

    if against is None or reward_model is None:
        report = measure(find_directory(model), pairs, limit)
    else:
        report = win_rate(
            find_directory(model), find_directory(against), reward_model, pairs, limit=limit, max_tokens=max_tokens
        )
    if output is not None:
        write_atomic(output, report.to_json() + "\n")
    if as_json:
        print(report.to_json())
        return

    from rich.console import Console

    Console().print(report.table())
