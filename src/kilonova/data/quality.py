"""Rules that tell prose from debris: lengths, symbols, and lines or phrases that repeat."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from kilonova.data.ngrams import ngram_hashes, word_hashes

_STOP_WORDS = frozenset({"the", "be", "to", "of", "and", "that", "have", "with"})
_BULLETS = ("-", "*", "•", "‣", "–")
_ELLIPSES = ("...", "…")
_LINE_ENDS = tuple(".!?\"'”’»:;)]…。！？」』।؟")
_SHORT_LINE = 30


@dataclass(frozen=True, kw_only=True)
class QualityConfig:
    """Bounds a document has to keep; None switches a rule off.

    Sources: Gopher (arXiv 2112.11446, appendix A.1.1 and table A1), FineWeb (arXiv 2406.17557, section 3.6), C4 (arXiv
    1910.10683, section 2.2). Gopher also drops pages above 100,000 words, which books exceed, so `max_words` is off.
    Words are separated by white space, so the rules about words do not fit scripts written without spaces.
    """

    min_words: int | None = 50  # Gopher
    max_words: int | None = None
    min_mean_word_length: float | None = 3.0  # Gopher
    max_mean_word_length: float | None = 10.0  # Gopher
    max_symbols_per_word: float | None = 0.1  # Gopher: hash signs, and ellipses
    max_bullet_lines: float | None = 0.9  # Gopher
    max_ellipsis_lines: float | None = 0.3  # Gopher
    min_alphabetic_words: float | None = 0.8  # Gopher
    min_stop_words: int | None = 2  # Gopher: of eight common words; English only
    max_duplicate_lines: float | None = 0.3  # Gopher
    max_duplicate_line_characters: float | None = 0.1  # FineWeb (Gopher: 0.2)
    max_duplicate_paragraphs: float | None = 0.3  # Gopher
    max_duplicate_paragraph_characters: float | None = 0.2  # Gopher
    max_top_ngram: tuple[float, ...] = (0.20, 0.18, 0.16)  # Gopher: of 2, 3 and 4 words
    max_duplicate_ngrams: tuple[float, ...] = (0.15, 0.14, 0.13, 0.12, 0.11, 0.10)  # Gopher: of 5 to 10 words
    min_punctuated_lines: float | None = 0.12  # FineWeb
    max_short_lines: float | None = 0.67  # FineWeb: of 30 characters at most
    placeholder_text: bool = True  # C4: "lorem ipsum"


@dataclass(frozen=True)
class Violation:
    """A rule, named as the field of its configuration, and the value of the document that breaks it."""

    rule: str
    value: float


def quality_violation(text: str, config: QualityConfig, language: str = "en") -> Violation | None:
    """The first rule that `text` breaks, or None. Shares are of characters, lines, paragraphs or words, from 0 to 1."""
    for rule, value, lowest, highest in _measures(text, config, language):
        if (lowest is not None and value < lowest) or (highest is not None and value > highest):
            return Violation(rule, round(value, 4))
    return None


Measure = tuple[str, float, float | None, float | None]


def _measures(text: str, config: QualityConfig, language: str) -> Iterator[Measure]:
    """Each rule's name, its value for the text, and its bounds; cheap ones first, computed only as far as needed."""
    words = text.split()
    count = max(1, len(words))
    yield "min_words", len(words), config.min_words, None
    yield "max_words", len(words), None, config.max_words
    mean = sum(map(len, words)) / count
    yield "min_mean_word_length", mean, config.min_mean_word_length, None
    yield "max_mean_word_length", mean, None, config.max_mean_word_length
    symbols = max(text.count("#"), text.count("...") + text.count("…"))
    yield "max_symbols_per_word", symbols / count, None, config.max_symbols_per_word
    alphabetic = sum(any(map(str.isalpha, word)) for word in words)
    yield "min_alphabetic_words", alphabetic / count, config.min_alphabetic_words, None
    if language == "en":
        stop_words = len(_STOP_WORDS.intersection(words))
        yield "min_stop_words", stop_words, config.min_stop_words, None
    if config.placeholder_text:
        yield "placeholder_text", "lorem ipsum" in text.lower(), None, 0
    yield from _line_measures(text, config)
    yield from _repetition_measures(words, config)


def _line_measures(text: str, config: QualityConfig) -> Iterator[Measure]:
    lines = [line for line in map(str.strip, text.splitlines()) if line]
    count = max(1, len(lines))
    bullets = sum(line.startswith(_BULLETS) for line in lines)
    yield "max_bullet_lines", bullets / count, None, config.max_bullet_lines
    yield "max_ellipsis_lines", sum(line.endswith(_ELLIPSES) for line in lines) / count, None, config.max_ellipsis_lines
    punctuated = sum(line.endswith(_LINE_ENDS) for line in lines)
    yield "min_punctuated_lines", punctuated / count, config.min_punctuated_lines, None
    short = sum(len(line) <= _SHORT_LINE for line in lines)
    yield "max_short_lines", short / count, None, config.max_short_lines
    share, characters = _repeated(lines)
    yield "max_duplicate_lines", share, None, config.max_duplicate_lines
    yield "max_duplicate_line_characters", characters, None, config.max_duplicate_line_characters
    share, characters = _repeated([part for part in map(str.strip, re.split(r"\n\s*\n", text)) if part])
    yield "max_duplicate_paragraphs", share, None, config.max_duplicate_paragraphs
    yield "max_duplicate_paragraph_characters", characters, None, config.max_duplicate_paragraph_characters


def _repeated(parts: Sequence[str]) -> tuple[float, float]:
    """The share of parts, and of their characters, that are copies of an earlier part."""
    unique = set(parts)
    total = max(1, sum(map(len, parts)))
    return 1 - len(unique) / max(1, len(parts)), 1 - sum(map(len, unique)) / total if parts else 0.0


def _repetition_measures(words: Sequence[str], config: QualityConfig) -> Iterator[Measure]:
    """Shares of the words' characters in the most frequent n-gram and in n-grams seen earlier, each counted once."""
    hashed = word_hashes(words)
    lengths = np.fromiter(map(len, words), np.int64, len(words))
    total = max(1, int(lengths.sum()))
    for n, highest in enumerate(config.max_top_ngram, start=2):
        if len(words) >= n:
            _, first, counts = np.unique(ngram_hashes(hashed, n), return_index=True, return_counts=True)
            top = int(counts.argmax())
            # An n-gram that occurs once repeats nothing, however short the text.
            size = int(lengths[first[top] : first[top] + n].sum()) * int(counts[top]) if counts[top] > 1 else 0
            yield f"max_top_ngram ({n} words)", size / total, None, highest
    for n, highest in enumerate(config.max_duplicate_ngrams, start=5):
        if len(words) >= n:
            hashes = ngram_hashes(hashed, n)
            again = np.ones(len(hashes), bool)
            again[np.unique(hashes, return_index=True)[1]] = False
            covered = np.zeros(len(words), bool)
            for offset in range(n):
                covered[offset : offset + len(hashes)] |= again
            yield f"max_duplicate_ngrams ({n} words)", int(lengths[covered].sum()) / total, None, highest
