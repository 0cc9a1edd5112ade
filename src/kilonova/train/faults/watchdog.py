"""Ends a process that makes no progress, so that whoever started it can start it again."""

from __future__ import annotations

import faulthandler
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

EXIT_CODE = 75


class Watchdog:
    """Within its block, exits the process when `beat` was not called for `timeout` seconds; None never does.

    The stacks of all threads are written to `report` first. The first beat has ten times as long to come, as what lies
    before it (compilation) is slow. A call that keeps Python's lock for ever is found too, after twice the time.
    """

    def __init__(self, timeout: float | None, report: Path, on_hang: Callable[[], None] = lambda: None) -> None:
        self._timeout = timeout
        self._report = report
        self._on_hang = on_hang
        self._done = threading.Event()

    def __enter__(self) -> Watchdog:
        self._last, self._patience = time.monotonic(), 10.0
        if self._timeout is not None:
            self._file = self._report.open("a")
            self._thread = threading.Thread(target=self._watch, args=(self._timeout,), name="watchdog", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._timeout is None:
            return
        self._done.set()
        self._thread.join()
        faulthandler.cancel_dump_traceback_later()
        self._file.close()
        if self._report.stat().st_size == 0:
            self._report.unlink()

    def beat(self) -> None:
        """Say that the process is alive."""
        self._last, self._patience = time.monotonic(), 1.0

    def _watch(self, timeout: float) -> None:
        while not self._done.wait(timeout / 20):
            allowed = self._patience * timeout
            # Armed anew for as long as this thread gets to run.
            faulthandler.dump_traceback_later(2 * allowed, exit=True, file=self._file)
            if time.monotonic() - self._last > allowed:
                print(f"{time.ctime()}: no progress for {allowed:g} s", file=self._file, flush=True)
                faulthandler.dump_traceback(file=self._file)
                self._on_hang()
                os._exit(EXIT_CODE)
