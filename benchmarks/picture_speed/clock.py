"""The time that a measurement may take, and what it takes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

Run = Callable[[], object]


class Clock:
    """The time that is left, and seconds of what is run."""

    def __init__(self, device: torch.device, minutes: float) -> None:
        self._device = device
        self._end = time.monotonic() + 60 * minutes

    @property
    def is_over(self) -> bool:
        return time.monotonic() > self._end

    def seconds(self, run: Run) -> float:
        self._synchronize()
        start = time.perf_counter()
        run()
        self._synchronize()
        return time.perf_counter() - start

    def median(self, run: Run, rounds: int) -> float:
        """Of at least three rounds after one that does not count, and of no more once the time is over."""
        run()
        found: list[float] = []
        while len(found) < rounds and (len(found) < 3 or not self.is_over):
            found.append(self.seconds(run))
        return statistics.median(found)

    def _synchronize(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize()
