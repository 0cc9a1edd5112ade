"""Words of a text in any script, and hashes of their n-grams."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

# Scripts written without spaces (Thai to Lao, Burmese, Khmer, kana, Han): each character counts as a word.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")
_FACTOR = np.uint64(0x9E3779B97F4A7C15)


def normalised_words(text: str) -> list[str]:
    """The words of `text` without case, punctuation and compatibility forms (NFKC)."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def word_hashes(words: Sequence[str]) -> np.ndarray:
    """One 64-bit hash for each word, uint64 `[len(words)]`, the same in every process."""
    return np.fromiter(map(_word_hash, words), np.uint64, len(words))


def ngram_hashes(hashes: np.ndarray, n: int) -> np.ndarray:
    """Hashes of the runs of `n` words, from the words' own: uint64 `[max(0, len(hashes) - n + 1)]`.

    Equal runs have equal hashes; two different ones among a million collide with a chance of about 3e-8.
    """
    count = max(0, len(hashes) - n + 1)
    combined = np.zeros(count, np.uint64)
    for offset in range(n):
        combined = combined * _FACTOR + hashes[offset : offset + count]
    return combined


@lru_cache(maxsize=2**18)
def _word_hash(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
