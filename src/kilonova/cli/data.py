"""`kilonova data`: make training data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from kilonova.core.files import write_atomic

app = typer.Typer(no_args_is_help=True)


@app.callback()
def data() -> None:
    """Make training data.

    Example: kilonova data instruct datasets/ --output instruct.jsonl
    """


@app.command()
def instruct(
    directory: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="Folder that holds sft/ and text/.")],
    output: Annotated[Path, typer.Option(help="JSON lines file to write the conversations to.")],
    held_out: Annotated[Path | None, typer.Option(help="File for a held-out 1 % of the prompts.")] = None,
    seed: Annotated[int, typer.Option(help="Equal seeds write equal files.")] = 0,
    report: Annotated[Path | None, typer.Option(help="File for the report as JSON, for the model card.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Most conversations from one source.")] = None,
    source: Annotated[list[str] | None, typer.Option(help="Use this source only; repeat for more.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """Turn public labelled data into conversations for supervised fine-tuning.

    Example: kilonova data instruct datasets/ --output instruct.jsonl
    """
    from kilonova.data.instruct import build

    built = build(directory, output, seed, held_out_path=held_out, limit=limit, only=tuple(source or ()))
    if report is not None:
        write_atomic(report, json.dumps(built.to_dict(), indent=1, ensure_ascii=False) + "\n")
    if as_json:
        print(json.dumps(built.to_dict(), ensure_ascii=False))
        return

    from rich.console import Console

    Console().print(built.table())
