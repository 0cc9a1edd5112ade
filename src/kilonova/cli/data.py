"""`kilonova data`: make training data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

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
    limit: Annotated[int | None, typer.Option(min=1, help="Most conversations from one source.")] = None,
    source: Annotated[list[str] | None, typer.Option(help="Use this source only; repeat for more.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """Turn public labelled data into conversations for supervised fine-tuning.

    Example: kilonova data instruct datasets/ --output instruct.jsonl
    """
    from kilonova.data.instruct import build

    report = build(directory, output, seed, held_out_path=held_out, limit=limit, only=tuple(source or ()))
    if as_json:
        print(json.dumps(report.to_dict()))
        return

    from rich.console import Console
    from rich.table import Table

    tokens = f"about {report.estimated_tokens / 1e6:.1f} M tokens"
    table = Table(title=f"{report.rows} conversations, {tokens}, {report.held_out_rows} held out")
    for heading in ("source", "conversations", "tokens (estimate)", "origin", "licence"):
        table.add_column(heading, justify="right" if heading.startswith(("conv", "tok")) else "left")
    for name, entry in report.by_source.items():
        table.add_row(
            name, str(entry["rows"]), str(entry["estimated_tokens"]), str(entry["origin"]), str(entry["licence"])
        )
    Console().print(table)
