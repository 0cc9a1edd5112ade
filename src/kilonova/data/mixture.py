"""Rows drawn from several sources by temperature.

The source and the row at every place of the run are functions of the seed and that place alone, found without walking
there and with memory that does not grow with the data, so a run resumes exactly, on any number of processes.
"""

from __future__ import annotations

import hashlib
import struct
from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Protocol

import numpy as np

from kilonova.core.errors import ConfigError
from kilonova.data.packing import ConcatenatedRows, EpochSampler, PackedRows, PackingWaste, RowDataset, SourceWindows
from kilonova.data.tokens import TokenizedSource

# Rows in which each source has its share exactly, to one row.
_BLOCK = 2**16
_ROUNDS = 16


class RowSampler(Protocol):
    """Says which rows each step takes."""

    def indices(self, step: int) -> list[int]: ...


def build_rows(
    sources: Sequence[TokenizedSource],
    weights: Sequence[float],
    sequence_length: int,
    seed: int,
    *,
    whole_documents: bool,
    temperature: float | None = None,
) -> ConcatenatedRows | PackedRows | MixedRows:
    """The rows of a mixture: documents packed whole (`PackedRows`), or cut where rows end (`ConcatenatedRows`).

    Without `temperature` a source is seen `weight` times in each pass over the mixture. With it, a row comes from
    source i with probability proportional to (weight_i * tokens_i)^(1 / temperature) for as long as the run lasts (mT5,
    arXiv 2010.11934, section 3.2, with alpha = 1 / temperature): 1 keeps the proportions, more evens them out.
    """
    if temperature is None:
        kind = PackedRows if whole_documents else ConcatenatedRows
        return kind(sources, weights, sequence_length, seed)
    probabilities = mixture_probabilities([len(source.tokens) for source in sources], weights, temperature)
    parts: list[PackedRows | SourceWindows] = [
        PackedRows([source], [1.0], sequence_length, seed)
        if whole_documents
        else SourceWindows(source, sequence_length)
        for source in sources
    ]
    return MixedRows(parts, probabilities)


def build_sampler(dataset: RowDataset, batch_size: int, seed: int) -> RowSampler:
    """The order of a data set's rows: drawn by temperature for `MixedRows`, else epoch after epoch."""
    if isinstance(dataset, MixedRows):
        return MixtureSampler(dataset.num_rows, dataset.probabilities, batch_size, seed)
    return EpochSampler(len(dataset), batch_size, seed)


def mixture_probabilities(tokens: Sequence[int], weights: Sequence[float], temperature: float) -> np.ndarray:
    """Each source's share of the rows, (weight * tokens)^(1 / temperature) made to sum to 1; float64."""
    if not temperature > 0:
        raise ConfigError("data.temperature: must be above 0")
    sizes = np.asarray(weights, np.float64) * np.asarray(tokens, np.float64)
    # The largest is 1 before the power, which could overflow at low temperatures.
    shares = (sizes / sizes.max()) ** (1 / temperature)
    return shares / shares.sum()


class MixedRows:
    """Several data sets as one, the rows of the first before those of the second; `probabilities` are for sampling."""

    def __init__(self, parts: Sequence[PackedRows | SourceWindows], probabilities: np.ndarray) -> None:
        self.num_rows = [len(part) for part in parts]
        self.probabilities = probabilities
        self._parts = parts
        self._starts = list(accumulate(self.num_rows, initial=0))

    def __len__(self) -> int:
        return self._starts[-1]

    def row(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        part = bisect_right(self._starts, index) - 1
        return self._parts[part].row(index - self._starts[part])

    @property
    def waste(self) -> PackingWaste:
        """Of one pass over every source."""
        wastes = [part.waste for part in self._parts]
        return PackingWaste(
            *(sum(getattr(waste, name) for waste in wastes) for name in PackingWaste.__dataclass_fields__)
        )


class MixtureSampler:
    """Row indices of every step, over data sets of `num_rows` rows that are numbered one after another.

    The run is divided into blocks of 65,536 rows. In each, a source has the number of rows that its probability asks
    for (at least one), in an order drawn from the seed; a source gives its rows in passes, each in an order of its own.
    """

    def __init__(self, num_rows: Sequence[int], probabilities: np.ndarray, batch_size: int, seed: int) -> None:
        self._num_rows = num_rows
        self._starts = list(accumulate(num_rows, initial=0))
        self._counts = _apportion(probabilities, _BLOCK)
        self._batch_size = batch_size
        self._seed = seed
        self._block = -1
        self._sources = np.empty(0, np.int32)
        self._ranks = np.empty(0, np.int32)

    def indices(self, step: int) -> list[int]:
        """The rows of `step` (from 0), the same whichever steps were asked for before."""
        first = step * self._batch_size
        return [self._index(position) for position in range(first, first + self._batch_size)]

    def _index(self, position: int) -> int:
        block, place = divmod(position, _BLOCK)
        if block != self._block:
            self._enter(block)
        source = int(self._sources[place])
        drawn = block * int(self._counts[source]) + int(self._ranks[place])
        size = self._num_rows[source]
        epoch, row = divmod(drawn, size)
        return self._starts[source] + permuted(row, size, f"{self._seed}:{source}:{epoch}")

    def _enter(self, block: int) -> None:
        """Draw the block's order of sources, and for each place how many earlier ones have the same source."""
        self._block = block
        ordered = np.repeat(np.arange(len(self._counts), dtype=np.int32), self._counts)
        places = np.random.default_rng([self._seed, block]).permutation(_BLOCK)
        self._sources = np.empty(_BLOCK, np.int32)
        self._sources[places] = ordered
        self._ranks = np.empty(_BLOCK, np.int32)
        for source, count in enumerate(self._counts):
            self._ranks[self._sources == source] = np.arange(count)


def permuted(index: int, size: int, key: str) -> int:
    """Where a permutation of 0 .. size - 1, drawn by `key`, sends `index`; no table is made.

    A swap-or-not shuffle (Hoang, Morris and Rogaway, CRYPTO 2012): each round pairs all indices and swaps half of the
    pairs, so that after `_ROUNDS` an index stayed in place with a chance of 2 ** -_ROUNDS beyond that of any other.
    """
    for round_key in _round_keys(key):
        partner = (round_key - index) % size
        if _mix(round_key ^ max(index, partner)) & 1:
            index = partner
    return index


@lru_cache(maxsize=1024)
def _round_keys(key: str) -> tuple[int, ...]:
    return struct.unpack(f"<{_ROUNDS}Q", hashlib.shake_128(key.encode()).digest(8 * _ROUNDS))


def _mix(value: int) -> int:
    """The finaliser of SplitMix64: every bit of the result depends on every bit of `value`."""
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return value ^ (value >> 31)


def _apportion(probabilities: np.ndarray, total: int) -> np.ndarray:
    """Whole numbers, each at least one, that sum to `total` in proportion (largest remainders)."""
    quotas = probabilities * (total - len(probabilities))
    counts = np.floor(quotas).astype(np.int64)
    missing = total - len(probabilities) - int(counts.sum())
    counts[np.argsort(counts - quotas, kind="stable")[:missing]] += 1
    return counts + 1
