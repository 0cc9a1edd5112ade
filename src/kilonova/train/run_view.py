"""A run on the screen while it goes on."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from kilonova.core.progress import ProgressReporter

_BLOCKS = "▁▂▃▄▅▆▇█"
_WIDTH = 48


class RunView:
    """Shows a run's records: a panel that stays in place in a terminal, a line now and then elsewhere."""

    def __init__(
        self, name: str, steps: int, start: int, *, quiet: bool = False, console: Console | None = None
    ) -> None:
        self._name, self._steps, self._step = name, steps, start
        self._losses: deque[float] = deque(maxlen=_WIDTH)
        self._validation: dict[str, float] = {}
        self._live: Live | None = None
        self._lines: ProgressReporter | None = None
        if sys.stderr.isatty() and not quiet:
            self._live = Live(console=console or Console(stderr=True), auto_refresh=False)
        else:
            self._lines = ProgressReporter(name, steps, start, quiet)

    def __enter__(self) -> RunView:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, record: dict[str, Any], goodput: float, seconds_left: float) -> None:
        """Show a record of the log; `goodput` is the part of this process's time that went into steps."""
        self._step = record["step"]
        self._losses.append(record["loss"])
        left = timedelta(seconds=round(seconds_left))
        if self._lines is not None:
            speed = f"{record['tokens_per_second']:.0f} tokens/s  MFU {record['mfu']:.0%}"
            self._lines.update(self._step, f"loss {record['loss']:.3f}  {speed}  goodput {goodput:.0%}  {left} left")
        elif self._live is not None:
            self._live.update(self._panel(record, goodput, left), refresh=True)

    def validation(self, results: dict[str, float]) -> None:
        """Remember the newest results on held-out data."""
        self._validation = results

    def _panel(self, record: dict[str, Any], goodput: float, left: timedelta) -> RenderableType:
        table = Table.grid(padding=(0, 2))
        progress = ProgressBar(total=self._steps, completed=self._step, width=_WIDTH)
        table.add_row("step", progress, f"{self._step}/{self._steps}")
        losses = sparkline(list(self._losses)).ljust(_WIDTH)
        table.add_row("loss", Text(losses, style="cyan"), f"{record['loss']:.4f}")
        for name, value in self._validation.items():
            table.add_row("", f"on {name}", f"{value:.4f}")
        figures = Table.grid(padding=(0, 3))
        figures.add_row(
            f"{record['tokens_per_second']:,.0f} tokens/s", f"MFU {record['mfu']:.1%}", f"goodput {goodput:.1%}"
        )
        figures.add_row(f"learning rate {record['lr']:.2e}", f"gradient norm {record['grad_norm']:.2f}", f"{left} left")
        return Panel(Group(table, figures), title=self._name, title_align="left")


def sparkline(values: Sequence[float]) -> str:
    """A line of block characters from the least value (lowest) to the greatest; not-finite ones are gaps."""
    finite = [value for value in values if value - value == 0]
    if not finite:
        return ""
    low, span = min(finite), (max(finite) - min(finite)) or 1.0
    top = len(_BLOCKS) - 1
    return "".join(_BLOCKS[round((value - low) / span * top)] if value - value == 0 else " " for value in values)
