"""Samples drawn by other processes while a step is computed."""

from __future__ import annotations

import weakref
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context

import torch

from kilonova.data.pictures.segments import SegmentBatch, SegmentBatches, SegmentSample

# Steps ahead of the one asked for, for each process.
_AHEAD = 2


class BatchesAhead:
    """The micro-batches of `batches`, the same to the bit, drawn by `workers` processes for the steps that follow the
    one asked for."""

    def __init__(self, batches: SegmentBatches, workers: int) -> None:
        self._batches = batches
        self._ahead = _AHEAD * workers
        self._pool = ProcessPoolExecutor(workers, get_context("spawn"), _begin, (batches,))
        self._drawing: dict[int, Future[list[SegmentSample]]] = {}
        weakref.finalize(self, self._pool.shutdown, wait=False, cancel_futures=True)

    def __call__(self, step: int) -> list[SegmentBatch]:
        wanted = range(step, step + self._ahead)
        for other in [other for other in self._drawing if other not in wanted]:
            self._drawing.pop(other).cancel()
        for other in wanted:
            if other not in self._drawing:
                self._drawing[other] = self._pool.submit(_draw, other)
        return self._batches.batches(self._drawing.pop(step).result())


# Set in each process that draws, as sources are too large to be sent along with every step.
_batches: SegmentBatches | None = None


def _begin(batches: SegmentBatches) -> None:
    global _batches
    torch.set_num_threads(1)
    _batches = batches


def _draw(step: int) -> list[SegmentSample]:
    assert _batches is not None
    return _batches.samples(step)
