"""The ledger of a process, read back: its attempts, and what each did."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Segment:
    """A stretch of time with one activity; `step` counts from 0."""

    activity: str
    start: float
    seconds: float
    step: int | None = None

    @property
    def end(self) -> float:
        return self.start + self.seconds


@dataclass
class Attempt:
    """One process's life: what it booked and noted, in order."""

    started: float
    records: list[Segment | dict[str, Any]] = field(default_factory=list)

    @property
    def segments(self) -> list[Segment]:
        return [record for record in self.records if isinstance(record, Segment)]

    def noted(self, what: str) -> list[dict[str, Any]]:
        return [record for record in self.records if isinstance(record, dict) and record["note"] == what]

    @property
    def end(self) -> float:
        """Its last sign of life."""
        times = [record.end if isinstance(record, Segment) else record["time"] for record in self.records]
        return max([self.started, *times])

    @property
    def reason(self) -> str | None:
        """Why it ended; None when it was cut off."""
        return next((note["reason"] for note in self.noted("ended")), None)


def read_ledger(path: Path) -> list[Attempt]:
    """The attempts that one process's ledger tells of, in order; a line that a full disk cut off is left out."""
    attempts: list[Attempt] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        if record.get("note") == "started":
            attempts.append(Attempt(record["time"]))
        else:
            attempts[-1].records.append(record if "note" in record else Segment(**record))
    return attempts
