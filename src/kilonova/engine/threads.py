"""How many threads a step computes with, chosen by measurement."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue

import torch

_SIZES = (1, 8, 64)
_ROUNDS = 5
# More threads must win by this much: they take processors from everything else.
_LEAST_GAIN = 1.1
# What a server does for each token while the next step is computed.
_READER_SECONDS = 2e-4


class StepThreads:
    """One thread for small steps, all of PyTorch's for those that gain from them.

    A step of a small model is a chain of products too short to share: handing them to a second thread takes longer
    than computing them. From how many tokens on that changes depends on model and machine, so it is measured, while
    another thread works on each step's output as a server does: on a small machine it displaces the second one.
    `step(n)` must compute a step of `n` tokens. On a GPU, or with one thread, nothing is measured or changed.
    """

    def __init__(self, step: Callable[[int], object], device: torch.device) -> None:
        self.num_threads = torch.get_num_threads()
        self.min_tokens = 0
        if device.type == "cpu" and self.num_threads > 1:
            self.min_tokens = self._measure(step)

    @contextmanager
    def __call__(self, num_tokens: int) -> Iterator[None]:
        """The number of threads that suits a step of `num_tokens`, until the block ends."""
        if num_tokens >= self.min_tokens:
            yield
            return
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(self.num_threads)

    def _measure(self, step: Callable[[int], object]) -> int:
        """The least tokens from which on all threads win; twice the largest size tried where they win at none."""
        least = 2 * _SIZES[-1]
        finished: SimpleQueue[int] = SimpleQueue()
        reader = threading.Thread(target=_read, args=(finished,), daemon=True)
        reader.start()

        def seconds(size: int, num_threads: int) -> float:
            torch.set_num_threads(num_threads)
            start = time.perf_counter()
            step(size)
            taken = time.perf_counter() - start
            finished.put(size)
            return taken

        try:
            for size in reversed(_SIZES):
                pairs = [(seconds(size, self.num_threads), seconds(size, 1)) for _ in range(_ROUNDS)]
                together, alone = map(statistics.median, zip(*pairs, strict=True))
                if alone < _LEAST_GAIN * together:
                    break
                least = size
        finally:
            torch.set_num_threads(self.num_threads)
            finished.put(0)
            reader.join()
        return least


def _read(finished: SimpleQueue[int]) -> None:
    while num_tokens := finished.get():
        end = time.thread_time() + num_tokens * _READER_SECONDS
        while time.thread_time() < end:
            pass
