"""Which rows a step reads."""

from __future__ import annotations

from kilonova.data.mixture import build_sampler
from kilonova.data.packing import Batch, RowDataset, make_batch


class StepBatches:
    """The micro-batches of every step for one of `num_ranks` data-parallel ranks.

    `batch_size` counts the rows of a step over all ranks; each takes every `num_ranks`-th of them, `micro_batch_size`
    at a time. The rows are a function of the seed and the step alone.
    """

    def __init__(
        self,
        dataset: RowDataset,
        batch_size: int,
        micro_batch_size: int,
        seed: int,
        *,
        rank: int = 0,
        num_ranks: int = 1,
    ) -> None:
        self._dataset = dataset
        self._sampler = build_sampler(dataset, batch_size, seed)
        self._micro_batch_size = micro_batch_size
        self._share = slice(rank, None, num_ranks)

    def __call__(self, step: int) -> list[Batch]:
        rows = self._sampler.indices(step)[self._share]
        size = self._micro_batch_size
        return [make_batch(self._dataset, rows[start : start + size]) for start in range(0, len(rows), size)]


def whole_batches(dataset: RowDataset, size: int, max_rows: int) -> list[Batch]:
    """The first rows in batches of `size`; a rest is left out, as another shape would compile again."""
    rows = min(len(dataset), max_rows)
    return [make_batch(dataset, range(start, start + size)) for start in range(0, rows - size + 1, size)]
