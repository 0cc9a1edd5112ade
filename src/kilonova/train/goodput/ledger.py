"""The ledger of a run: what every second of every process went into, kept so that no death of a process loses any."""

from __future__ import annotations

import json
import os
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import psutil

from kilonova.train.signals import Interrupted

Activity = Literal[
    "import",
    "rendezvous",
    "build",
    "restore",
    "data_wait",
    "communication",
    "compute",
    "checkpoint",
    "evaluation",
    "export",
    "idle",
]

_LEAST = 1e-4
_process: int | None = None


class Ledger:
    """Books the time of one process as a chain of segments without gap or overlap, the first of a process from its
    start.

    `path` is appended to, a JSON object a line, each by one write: `{"activity", "start", "seconds", "step"}` for a
    segment that ended, `{"note", "time", ...}` for what happened at a moment. Times are seconds since the epoch,
    advanced by the monotonic clock. Without a path nothing is written.
    """

    def __init__(self, path: Path | None) -> None:
        self._file: int | None = None
        self._offset = time.time() - time.monotonic()
        self.seconds: dict[str, float] = defaultdict(float)
        """Seconds booked by this process, by activity."""
        self._activity: Activity = "import"
        self._step: int | None = None
        self.started = self._since = time.time() - _unbooked_age()
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            self._write({"note": "started", "time": self.started, "pid": os.getpid()})

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Book the rest, and why the process ends: `finished`, `stopped` (on request) or `failed`."""
        reason = "finished" if kind is None else "stopped" if issubclass(kind, Interrupted) else "failed"
        self.enter("idle")
        self.note("ended", reason=reason)
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def now(self) -> float:
        return self._offset + time.monotonic()

    def enter(self, activity: Activity, step: int | None = None) -> None:
        """Book the time until now, and what follows as `activity`. A moment too short to matter goes to the latter."""
        now = max(self.now(), self._since)
        seconds = now - self._since
        if seconds < _LEAST:
            now = self._since
        else:
            self.seconds[self._activity] += seconds
            segment = {"activity": self._activity, "start": round(self._since, 6), "seconds": round(seconds, 6)}
            self._write(segment if self._step is None else segment | {"step": self._step})
        self._activity, self._step, self._since = activity, step, now

    @contextmanager
    def during(self, activity: Activity, step: int | None = None) -> Iterator[None]:
        """Book the block as `activity`, within whatever is going on, and then that again."""
        outer, outer_step = self._activity, self._step
        self.enter(activity, outer_step if step is None else step)
        try:
            yield
        finally:
            self.enter(outer, outer_step)

    def note(self, what: str, **values: Any) -> None:
        """Write down that something happened now."""
        self._write({"note": what, "time": round(self.now(), 6), **values})

    def _write(self, record: dict[str, Any]) -> None:
        if self._file is not None:
            os.write(self._file, (json.dumps(record) + "\n").encode())


def _unbooked_age() -> float:
    """Seconds since this process was started, for its first ledger; later ones do not book that time again."""
    global _process
    known, _process = _process == os.getpid(), os.getpid()
    return 0.0 if known else _process_age()


def _process_age() -> float:
    """Seconds since this process was started or forked."""
    try:
        # The kernel's own count is exact to 10 ms; psutil adds it to a time of boot that is not.
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError):
        return time.time() - psutil.Process().create_time()
