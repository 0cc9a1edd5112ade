"""`kilonova train report`: where a run's time went."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def report(
    run: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="The folder a run wrote to.")],
    output: Annotated[Path | None, typer.Option(help="Folder to write a page with plots to, report.html.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """Goodput, faults and repairs, checkpoints, stragglers: what every second of a run went into, also while it runs.

    Example: kilonova train report runs/mine --output runs/mine
    """
    from dataclasses import asdict

    from kilonova.train.goodput.report import goodput_report

    found = goodput_report(run)
    if output is not None:
        from kilonova.core.files import write_atomic
        from kilonova.train.goodput.page import report_page

        write_atomic(output / "report.html", report_page(run, found))
    if as_json:
        print(json.dumps(asdict(found)))
        return

    from rich.console import Console

    from kilonova.train.goodput.table import report_tables

    for table in report_tables(run, found):
        Console().print(table)
    if output is not None:
        print(output / "report.html")
