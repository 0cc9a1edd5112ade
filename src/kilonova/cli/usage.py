"""`kilonova usage`: what was used, by whom, and what it cost."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kilonova.cli.server_data import default_data, open_database
from kilonova.core.errors import ConfigError

if TYPE_CHECKING:
    from kilonova.serve.ledger.usage import Usage

app = typer.Typer()


@app.command()
def usage(
    by: Annotated[
        list[str] | None,
        typer.Option(help="Group by hour, day, key, model, operation or status; repeat for more. [default: day]"),
    ] = None,
    since: Annotated[
        str, typer.Option(metavar="TIME", help="From this time (UTC) on: 2026-11-30, 2026-11-30T12:00, 7d or 24h ago.")
    ] = "30d",
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Until before this time; else until now.")] = None,
    key: Annotated[str | None, typer.Option(help="Only calls of this key, by its name or id.")] = None,
    model: Annotated[str | None, typer.Option(help="Only calls of this model.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values instead of a table.")] = False,
    data: Annotated[Path | None, typer.Option(help="The server's data directory.")] = None,
    database: Annotated[str | None, typer.Option(metavar="URL", help="The server's database, if not there.")] = None,
) -> None:
    """Add up the ledger: requests, tokens, cost, and the time to the first token.

    Example: kilonova usage --by day --by model --since 7d
    """
    if as_json and as_csv:
        raise ConfigError("--json and --csv: choose one of them")

    from datetime import UTC, datetime

    from kilonova.serve.ledger.usage import parse_dimensions, parse_time, read_usage

    now = datetime.now(UTC)
    dimensions = parse_dimensions(by or ["day"])
    start = parse_time(since, "--since", now)
    end = now if until is None else parse_time(until, "--until", now)
    filters: dict[str, Any] = {"since": start, "until": end, "key": key, "model": model}
    with open_database(data or default_data(), database, must_exist=True) as opened:
        rows = read_usage(opened, dimensions, **filters)
        (total,) = read_usage(opened, **filters)
    if as_json:
        period = {"since": start.isoformat(), "until": end.isoformat(), "by": dimensions}
        print(json.dumps({**period, "rows": [row.flat() for row in rows], "total": total.flat()}, indent=2))
    elif as_csv:
        _write_csv(dimensions, rows, total)
    else:
        _print_table(dimensions, rows, total)


def _write_csv(by: Sequence[str], rows: Sequence[Usage], total: Usage) -> None:
    names = list(rows[0].flat()) if rows else [*by, *total.flat()]
    writer = csv.DictWriter(sys.stdout, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(row.flat() for row in rows)


def _print_table(by: Sequence[str], rows: Sequence[Usage], total: Usage) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*by, show_footer=True)
    for index, column in enumerate(table.columns):
        column.footer = "total" if index == 0 else ""
    numbers = _numbers(total)
    for name, value in numbers.items():
        table.add_column(name, justify="right", footer=value)
    for row in rows:
        groups = [row.key_name or value or "(none)" if name == "key" else value for name, value in row.group.items()]
        table.add_row(*groups, *_numbers(row).values())
    Console().print(table if rows else "No calls in this time.")


def _numbers(row: Usage) -> dict[str, str]:
    """The columns of a table: what all rows are likely to have."""
    media = (
        {"images": f"{row.images:,}", "video s": f"{row.video_seconds:,}"} if row.images or row.video_seconds else {}
    )
    return {
        "requests": f"{row.requests:,}",
        "refused": f"{row.refused:,}",
        "failed": f"{row.failed + row.lost:,}",
        "cancelled": f"{row.cancelled:,}",
        "input": f"{row.input_tokens:,}",
        "cached": f"{row.cache_read_tokens:,}",
        "written": f"{row.cache_write_tokens:,}",
        "output": f"{row.output_tokens:,}",
        **media,
        "cost (USD)": f"{row.price:,.6f}",
        "TTFT p50": _milliseconds(row.time_to_first_token_p50),
        "TTFT p95": _milliseconds(row.time_to_first_token_p95),
    }


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1000:,.0f} ms"
