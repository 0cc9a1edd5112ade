"""Reports of engines beside each other as tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table


def print_rows(report: Mapping[str, Any], columns: Mapping[str, str], title: str) -> None:
    """The report's rows, with the keys of `columns` under its titles."""
    head = f"{report['model']}: {title}, {report['threads']} threads, medians of {report['rounds']} rounds"
    table = Table(title=head)
    for key, heading in columns.items():
        table.add_column(heading, justify="left" if key in ("engine", "name") else "right")
    for row in report["rows"]:
        table.add_row(*(_cell(row.get(key)) for key in columns))
    Console().print(table)


def print_notes(report: Mapping[str, Any]) -> None:
    """The read bandwidth, what is not installed, and what failed."""
    console = Console(highlight=False)
    if report["read_bandwidth_gb_s"] is not None:
        console.print(f"read bandwidth: {report['read_bandwidth_gb_s']:.1f} GB/s")
    for name in report["missing"]:
        console.print(f"not installed: {name}", markup=False)
    for name, reason in report["failed"].items():
        console.print(f"failed: {name}: {reason}", markup=False)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
    return "" if value is None else str(value)
