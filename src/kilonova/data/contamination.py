"""Evaluation passages that occur in training documents, found by runs of words.

A passage is a string of an evaluation row. It is contaminated when one training document holds a run of its words that
is at least half of the passage and 13 words (or the whole passage, if that is shorter), or 50 words of a long one.

Runs are found by 8-grams and the longest counts: of the measures compared on 13 benchmarks by arXiv 2411.03923, that
predicts best what a model gains, and larger n miss much. Tulu 3 (arXiv 2411.15124) takes 8-grams and half of a
passage's words as well. 13 words are GPT-3's (arXiv 2005.14165, appendix C) and leave out phrases such as "which of
the following is an example of a"; 50 are those of arXiv 2107.06499.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kilonova.core.errors import ConfigError
from kilonova.data.ngrams import ngram_hashes, normalised_words, word_hashes
from kilonova.data.sources import read_rows


@dataclass(frozen=True, kw_only=True)
class ContaminationConfig:
    """What run of words is contamination.

    One that makes up `min_share` of the passage and at least `min_words` words (or the whole passage), or `long_run`
    words. Passages shorter than `ngram` words are not tested.
    """

    ngram: int = 8
    min_share: float = 0.5
    min_words: int = 13
    long_run: int = 50

    def __post_init__(self) -> None:
        if self.ngram < 1:
            raise ConfigError("contamination.ngram: must be at least 1")
        if not 0 < self.min_share <= 1:
            raise ConfigError("contamination.min_share: must be above 0 and at most 1")
        if not self.ngram <= self.min_words <= self.long_run:
            raise ConfigError("contamination: ngram, min_words and long_run must not fall, in this order")


@dataclass(frozen=True)
class Overlap:
    """A run of `words` words of row `row` (from 0) of evaluation file `file`, which is `share` of its passage."""

    file: str
    row: int
    words: int
    share: float
    contaminated: bool


@dataclass
class EvaluationFile:
    """What was found of one evaluation file: the numbers of its rows that were touched and contaminated."""

    rows: int = 0
    tested: int = 0
    touched: set[int] = field(default_factory=set)
    contaminated: set[int] = field(default_factory=set)


class EvaluationIndex:
    """The n-grams of evaluation files, against which training documents are held.

    Memory: about 20 bytes for each word of the evaluation files, and 16 more while it is built.
    """

    def __init__(self, paths: Sequence[str | Path], config: ContaminationConfig) -> None:
        self._config = config
        self.files: dict[str, EvaluationFile] = {}
        self._rows: list[tuple[str, int]] = []
        lengths: list[int] = []
        hashes: list[np.ndarray] = []
        for path in paths:
            found = self.files[str(path)] = EvaluationFile()
            for number, row in enumerate(read_rows(path)):
                found.rows += 1
                before = len(lengths)
                for passage in _strings(row):
                    words = normalised_words(passage)
                    if len(words) >= config.ngram:
                        self._rows.append((str(path), number))
                        lengths.append(len(words))
                        hashes.append(ngram_hashes(word_hashes(words), config.ngram))
                found.tested += len(lengths) > before
        self._lengths = np.asarray(lengths, np.int64)
        counts = self._lengths - config.ngram + 1
        # Position p of passage i stands for the run of words that begins there; passages are kept one number apart,
        # so that runs never continue from one into the next.
        self._starts = np.cumsum(np.concatenate([[0], counts[:-1] + 1])) if lengths else np.empty(0, np.int64)
        positions = [np.arange(start, start + count) for start, count in zip(self._starts, counts, strict=True)]
        flat = np.concatenate(hashes) if hashes else np.empty(0, np.uint64)
        order = np.argsort(flat, kind="stable")
        self._hashes = flat[order]
        self._positions = (np.concatenate(positions) if positions else np.empty(0, np.int64))[order]

    def overlaps(self, text: str) -> list[Overlap]:
        """The longest run of each passage that `text` shares, longest first; the files' counts are kept as well."""
        hashes = np.unique(ngram_hashes(word_hashes(normalised_words(text)), self._config.ngram))
        left = np.searchsorted(self._hashes, hashes, side="left")
        right = np.searchsorted(self._hashes, hashes, side="right")
        known = right > left
        spans = [np.arange(start, end) for start, end in zip(left[known], right[known], strict=True)]
        if not spans:
            return []
        found = [self._overlap(start, count) for start, count in _runs(self._positions[np.concatenate(spans)])]
        best: dict[int, Overlap] = {}
        for passage, overlap in found:
            if passage not in best or overlap.words > best[passage].words:
                best[passage] = overlap
        for overlap in best.values():
            self.files[overlap.file].touched.add(overlap.row)
            if overlap.contaminated:
                self.files[overlap.file].contaminated.add(overlap.row)
        return sorted(best.values(), key=lambda overlap: (-overlap.contaminated, -overlap.words))

    def _overlap(self, start: int, count: int) -> tuple[int, Overlap]:
        passage = int(np.searchsorted(self._starts, start, side="right")) - 1
        config, length = self._config, int(self._lengths[passage])
        words = count + config.ngram - 1
        share = words / length
        enough = share >= config.min_share and words >= min(config.min_words, length)
        contaminated = enough or words >= config.long_run
        return passage, Overlap(*self._rows[passage], words, round(share, 3), contaminated)


def _runs(positions: np.ndarray) -> Iterator[tuple[int, int]]:
    """First value and length of every run of consecutive numbers."""
    positions = np.sort(positions)
    breaks = np.flatnonzero(np.diff(positions) != 1) + 1
    starts = np.concatenate([[0], breaks])
    ends = np.concatenate([breaks, [len(positions)]])
    for start, end in zip(starts, ends, strict=True):
        yield int(positions[start]), int(end - start)


def _strings(value: Any) -> Iterator[str]:
    """All strings in a JSON value, at any depth."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)
