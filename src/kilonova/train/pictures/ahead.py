"""Batches made while the ones before them are trained on."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")


class Ahead(Generic[T]):
    """A function of the step whose next value is computed in a thread of its own, for steps asked for in order.

    `make` is never called twice at a time, and its errors are raised where the value is asked for.
    """

    def __init__(self, make: Callable[[int], T]) -> None:
        self._make = make
        self._pool = ThreadPoolExecutor(1, "batches")
        self._next: tuple[int, Future[T]] | None = None

    def __call__(self, step: int) -> T:
        if self._next is None or self._next[0] != step:
            self._next = (step, self._pool.submit(self._make, step))
        made = self._next[1].result()
        self._next = (step + 1, self._pool.submit(self._make, step + 1))
        return made
