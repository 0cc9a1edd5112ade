"""Documents packed into rows of equal length, kept apart by document numbers.

A data set is a pure function of its seed and a row's index, so resuming at any step needs no state beyond the step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from kilonova.core.errors import DataError
from kilonova.core.types import IGNORE_INDEX
from kilonova.data.tokens import TokenizedSource


@dataclass(frozen=True)
class Batch:
    """`input_ids`, `labels` (`IGNORE_INDEX` where no loss is taken) and `document_ids`, all int64 `[B, T]`."""

    input_ids: Tensor
    labels: Tensor
    document_ids: Tensor

    def to(self, device: torch.device) -> Batch:
        return Batch(self.input_ids.to(device), self.labels.to(device), self.document_ids.to(device))


class RowDataset(Protocol):
    """Rows of one length, each given as tokens, targets and document numbers of `sequence_length + 1` positions."""

    def __len__(self) -> int: ...

    def row(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]: ...


@dataclass(frozen=True)
class PackingWaste:
    """What packing costs: `empty` of all `positions` carry no token; `too_long` of the `documents` are left out whole,
    and `cut` lie in more than one row, so that a later part does not see an earlier one.
    """

    positions: int
    empty: int
    documents: int
    too_long: int
    cut: int

    @property
    def empty_share(self) -> float:
        """The share of positions that carry no token, 0 to 1."""
        return self.empty / self.positions


class ConcatenatedRows:
    """Sources cut into consecutive windows: a long document spans rows, short ones share a row (for pretraining)."""

    def __init__(
        self, sources: Sequence[TokenizedSource], weights: Sequence[float], sequence_length: int, seed: int
    ) -> None:
        self._sources = sources
        self._length = sequence_length
        generator = np.random.default_rng(seed)
        pairs = []
        for number, (source, weight) in enumerate(zip(sources, weights, strict=True)):
            windows = (len(source.tokens) - 1) // sequence_length
            if windows == 0:
                raise DataError(f"a source of {len(source.tokens)} tokens does not fill one row of {sequence_length}")
            order = np.concatenate([generator.permutation(windows) for _ in range(int(np.ceil(weight)))])
            chosen = order[: max(1, round(weight * windows))]
            pairs.append(np.stack([np.full_like(chosen, number), chosen], axis=1))
        self._windows = np.concatenate(pairs)

    def __len__(self) -> int:
        return len(self._windows)

    def row(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        number, window = self._windows[index]
        return _window(self._sources[number], int(window), self._length)

    @property
    def waste(self) -> PackingWaste:
        """Documents are counted once for each source, whatever its weight."""
        return PackingWaste(
            positions=len(self) * self._length,
            empty=0,
            documents=sum(len(source.offsets) - 1 for source in self._sources),
            too_long=0,
            cut=sum(_num_cut(source, self._length) for source in self._sources),
        )


class SourceWindows:
    """The windows of one source in order, with no table of them in memory: for mixtures, whose sampler shuffles."""

    def __init__(self, source: TokenizedSource, sequence_length: int) -> None:
        self._source = source
        self._length = sequence_length
        if len(self) == 0:
            raise DataError(f"a source of {len(source.tokens)} tokens does not fill one row of {sequence_length}")

    def __len__(self) -> int:
        return (len(self._source.tokens) - 1) // self._length

    def row(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return _window(self._source, index, self._length)

    @property
    def waste(self) -> PackingWaste:
        cut = _num_cut(self._source, self._length)
        return PackingWaste(len(self) * self._length, 0, len(self._source.offsets) - 1, 0, cut)


def _window(source: TokenizedSource, window: int, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    span = slice(window * length, (window + 1) * length + 1)
    positions = np.arange(span.start, span.stop)
    documents = np.searchsorted(source.offsets, positions, side="right")
    return source.tokens[span], source.trained[span], documents


def _num_cut(source: TokenizedSource, length: int) -> int:
    """Documents whose first and last token are inputs of different windows."""
    starts, ends = source.offsets[:-1], source.offsets[1:]
    return int(np.count_nonzero((ends > starts) & (starts // length != (ends - 1) // length)))


class PackedRows:
    """Whole documents packed by best fit, longest first; those that do not fit a row are left out (for SFT)."""

    def __init__(
        self, sources: Sequence[TokenizedSource], weights: Sequence[float], sequence_length: int, seed: int
    ) -> None:
        self._sources = sources
        self._length = sequence_length
        generator = np.random.default_rng(seed)
        chosen: list[tuple[int, int, int]] = []
        self.num_too_long = 0
        for number, (source, weight) in enumerate(zip(sources, weights, strict=True)):
            lengths = np.diff(source.offsets)
            count = len(lengths)
            order = np.concatenate([generator.permutation(count) for _ in range(int(np.ceil(weight)))])
            for document in order[: max(1, round(weight * count))]:
                if lengths[document] > sequence_length + 1:
                    self.num_too_long += 1
                else:
                    chosen.append((int(lengths[document]), number, int(document)))
        if not chosen:
            raise DataError(f"no document fits a row of {sequence_length} tokens")
        self._rows = best_fit(chosen, sequence_length + 1)
        self._num_tokens = sum(length for length, _, _ in chosen)
        self._num_documents = len(chosen) + self.num_too_long

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def waste(self) -> PackingWaste:
        """Positions are those of rows with their last target, `sequence_length + 1` each."""
        positions = len(self) * (self._length + 1)
        return PackingWaste(positions, positions - self._num_tokens, self._num_documents, self.num_too_long, 0)

    def row(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        size = self._length + 1
        tokens = np.zeros(size, np.int64)
        trained = np.zeros(size, bool)
        documents = np.full(size, -1, np.int64)
        start = 0
        for place, (number, document) in enumerate(self._rows[index]):
            source = self._sources[number]
            span = slice(source.offsets[document], source.offsets[document + 1])
            end = start + span.stop - span.start
            tokens[start:end] = source.tokens[span]
            trained[start:end] = source.trained[span]
            documents[start:end] = place
            start = end
        return tokens, trained, documents


def best_fit(documents: list[tuple[int, int, int]], capacity: int) -> list[list[tuple[int, int]]]:
    """Rows of (source, document): each document goes to the fullest row that still holds it."""
    rows: list[list[tuple[int, int]]] = []
    by_space: list[list[int]] = [[] for _ in range(capacity + 1)]
    spaces: set[int] = set()
    for length, number, document in sorted(documents, key=lambda item: -item[0]):
        space = min((s for s in spaces if s >= length), default=None)
        if space is None:
            rows.append([])
            row, space = len(rows) - 1, capacity
        else:
            row = by_space[space].pop()
            if not by_space[space]:
                spaces.discard(space)
        rows[row].append((number, document))
        left = space - length
        by_space[left].append(row)
        spaces.add(left)
    return rows


def make_batch(dataset: RowDataset, indices: Sequence[int]) -> Batch:
    """Stack rows into a batch, with labels shifted by one and confined to their documents."""
    tokens, trained, documents = (
        np.stack([np.asarray(part) for part in parts]) for parts in zip(*map(dataset.row, indices), strict=True)
    )
    tokens = tokens.astype(np.int64)
    documents = documents.astype(np.int64)
    target = trained[:, 1:] & (documents[:, 1:] == documents[:, :-1])
    labels = np.where(target, tokens[:, 1:], IGNORE_INDEX)
    return Batch(
        input_ids=torch.from_numpy(tokens[:, :-1].copy()),
        labels=torch.from_numpy(labels),
        document_ids=torch.from_numpy(documents[:, :-1].copy()),
    )


class EpochSampler:
    """Row indices of every step: epoch after epoch, each in an order of its own drawn from the seed."""

    def __init__(self, num_rows: int, batch_size: int, seed: int) -> None:
        self._num_rows = num_rows
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = -1
        self._order = np.empty(0, np.int64)

    def indices(self, step: int) -> list[int]:
        """The rows of `step` (from 0); a batch may straddle two epochs."""
        first = step * self._batch_size
        return [self._index(position) for position in range(first, first + self._batch_size)]

    def _index(self, position: int) -> int:
        epoch, place = divmod(position, self._num_rows)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = np.random.default_rng([self._seed, epoch]).permutation(self._num_rows)
        return int(self._order[place])
