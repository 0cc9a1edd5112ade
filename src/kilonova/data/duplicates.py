"""Exact and near duplicates among documents that are seen once, in order.

Memory grows with the number of kept documents, not with their text: about 0.14 kB each for exact duplicates and
2.4 kB for near duplicates.
"""

from __future__ import annotations

import hashlib
import unicodedata
from dataclasses import dataclass

from rensa import RMinHash, RMinHashDeduplicator

from kilonova.core.errors import ConfigError
from kilonova.data.ngrams import normalised_words

_SIGNATURE = 128
# 16 bands of 8 rows find a pair of Jaccard similarity 0.8 with a chance of 1 - (1 - 0.8^8)^16 = 0.95 and one of 0.9
# nearly always; what they find is then compared by its whole signature.
_BANDS = 16


@dataclass(frozen=True, kw_only=True)
class NearDuplicateConfig:
    """Documents whose sets of `words`-word runs have a Jaccard similarity of at least `similarity` are duplicates.

    The similarity is estimated from MinHash signatures of 128 values (Broder, "On the resemblance and containment of
    documents", 1997), with a standard error of at most 0.045. Runs of five words are those of FineWeb
    (arXiv 2406.17557, section 3.4), the threshold of 0.8 that of arXiv 2107.06499 (section 4.2).
    """

    similarity: float = 0.8
    words: int = 5

    def __post_init__(self) -> None:
        if not 0.5 <= self.similarity <= 1:
            raise ConfigError("near_duplicates.similarity: must be from 0.5 to 1")
        if self.words < 1:
            raise ConfigError("near_duplicates.words: must be at least 1")


class ExactDuplicates:
    """Recognises texts that are equal but for case, white space and compatibility forms (NFKC)."""

    def __init__(self) -> None:
        self._seen: dict[bytes, int] = {}

    def original(self, text: str, number: int) -> int | None:
        """The number of the first document with this text, or None, and then `number` is remembered as that."""
        normal = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
        digest = hashlib.blake2b(normal.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        first = self._seen.setdefault(digest, number)
        return None if first == number else first


class NearDuplicates:
    """Recognises texts that share most of their runs of words with an earlier one that was kept."""

    def __init__(self, config: NearDuplicateConfig) -> None:
        self._words = config.words
        self._index = RMinHashDeduplicator(config.similarity, _SIGNATURE, True, num_bands=_BANDS)

    def original(self, text: str, number: int) -> int | None:
        """The number of the first similar document, or None, and then `number` is remembered."""
        words = normalised_words(text)
        if not words:
            return None
        count = max(1, len(words) - self._words + 1)
        signature = RMinHash(_SIGNATURE, 42)
        signature.update([" ".join(words[start : start + self._words]) for start in range(count)])
        similar = self._index.get_duplicates(signature)
        if similar:
            return min(map(int, similar))
        self._index.add(str(number), signature)
        return None
