"""Progress that is pleasant in a terminal and readable in a log."""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class ProgressReporter:
    """Reports steps of a long task on standard error: a live bar in a terminal, a line every `log_seconds` elsewhere.

    `total` None means that the number of steps is not known beforehand. A `quiet` one reports nothing.
    """

    def __init__(
        self,
        description: str,
        total: int | None,
        completed: int = 0,
        quiet: bool = False,
        log_seconds: float = 30.0,
    ) -> None:
        self._quiet = quiet
        self._description = description
        self._total = total
        self._log_seconds = log_seconds
        self._last_log = 0.0
        self._bar: Progress | None = None
        if sys.stderr.isatty() and not quiet:
            self._bar = Progress(
                TextColumn("[bold]{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[detail]}"),
                console=Console(stderr=True),
            )
            self._task = self._bar.add_task(description, total=total, completed=completed, detail="")

    def __enter__(self) -> ProgressReporter:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, completed: int, detail: str = "") -> None:
        """Show that `completed` of the total steps are done, with a few words on how it goes."""
        if self._quiet:
            return
        if self._bar is not None:
            self._bar.update(self._task, completed=completed, detail=detail)
            return
        now = time.monotonic()
        if now - self._last_log >= self._log_seconds or completed == self._total:
            self._last_log = now
            count = completed if self._total is None else f"{completed}/{self._total}"
            print(f"{self._description} {count} {detail}", file=sys.stderr, flush=True)
