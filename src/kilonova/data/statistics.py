"""What is in a set of sources: sizes, lengths, languages, duplicates, and each source's share of the training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from kilonova.core.errors import DataError
from kilonova.core.progress import ProgressReporter
from kilonova.data.duplicates import ExactDuplicates, NearDuplicateConfig, NearDuplicates
from kilonova.data.language import identify_language
from kilonova.data.mixture import mixture_probabilities
from kilonova.data.packing import PackingWaste
from kilonova.data.sources import Source, conversation_text, read_documents, read_rows, resolve
from kilonova.data.tokens import TokenizedSource

_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


@dataclass
class SourceStatistics:
    """One source.

    `lengths` are those of its documents, in tokens (their end included), or in bytes without a tokenizer; `languages`
    are bytes by ISO 639 code; duplicates are counted against all sources up to the document. `share` is the part of
    training that comes from the source, by tokens (or bytes).
    """

    name: str
    documents: int = 0
    bytes: int = 0
    tokens: int | None = None
    exact_duplicates: int = 0
    near_duplicates: int = 0
    languages: Counter[str] = field(default_factory=Counter)
    lengths: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    share: float = 0.0

    @property
    def size(self) -> int:
        """Tokens, or bytes without a tokenizer."""
        return self.bytes if self.tokens is None else self.tokens

    @property
    def bytes_per_token(self) -> float | None:
        return None if not self.tokens else self.bytes / self.tokens


@dataclass
class DataStatistics:
    """All sources of a data set, and what it costs to pack them into rows of `sequence_length` tokens, if they are."""

    sources: list[SourceStatistics]
    unit: str
    sequence_length: int | None = None
    packing: PackingWaste | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; lengths as quantiles."""
        packing = None
        if self.packing is not None:
            packing = asdict(self.packing) | {"empty_share": self.packing.empty_share}
        return {
            "unit": self.unit,
            "sequence_length": self.sequence_length,
            "packing": packing,
            "sources": [
                {
                    "name": source.name,
                    "documents": source.documents,
                    "bytes": source.bytes,
                    "tokens": source.tokens,
                    "bytes_per_token": source.bytes_per_token,
                    "share": source.share,
                    "exact_duplicates": source.exact_duplicates,
                    "near_duplicates": source.near_duplicates,
                    "languages": dict(source.languages.most_common()),
                    "length_quantiles": dict(
                        zip(map(str, _QUANTILES), np.quantile(source.lengths, _QUANTILES).tolist(), strict=True)
                    ),
                }
                for source in self.sources
            ],
        }

    def tables(self) -> list[Table]:
        """For the terminal: sizes, contents, and packing."""
        sizes = Table(title="sources")
        for name in ("source", "documents", "MB", "M tokens", "bytes a token", "share of training"):
            sizes.add_column(name, justify="left" if name == "source" else "right")
        contents = Table(title=f"documents (lengths in {self.unit})")
        for name in ("source", "median length", "longest", "exact duplicates", "near duplicates", "languages"):
            contents.add_column(name, justify="left" if name in ("source", "languages") else "right")
        for source in self.sources:
            rate = source.bytes_per_token
            sizes.add_row(
                source.name,
                f"{source.documents:,}",
                f"{source.bytes / 1e6:.2f}",
                "-" if source.tokens is None else f"{source.tokens / 1e6:.2f}",
                "-" if rate is None else f"{rate:.2f}",
                f"{source.share:.1%}",
            )
            contents.add_row(
                source.name,
                f"{int(np.median(source.lengths)):,}",
                f"{int(source.lengths.max()):,}",
                f"{source.exact_duplicates / source.documents:.1%}",
                f"{source.near_duplicates / source.documents:.1%}",
                ", ".join(
                    f"{code} {part / max(1, source.bytes):.0%}" for code, part in source.languages.most_common(3)
                ),
            )
        if self.packing is None:
            return [sizes, contents]
        packing = Table(title=f"rows of {self.sequence_length:,} tokens")
        for name in ("positions", "empty", "documents", "too long, left out", "cut at a row's end"):
            packing.add_column(name, justify="right")
        waste = self.packing
        packing.add_row(
            f"{waste.positions:,}",
            f"{waste.empty_share:.2%}",
            f"{waste.documents:,}",
            f"{waste.too_long:,} ({waste.too_long / waste.documents:.1%})",
            f"{waste.cut:,} ({waste.cut / waste.documents:.1%})",
        )
        return [sizes, contents, packing]


def measure(
    sources: Sequence[Source],
    root: str | Path,
    tokenized: Sequence[TokenizedSource] | None = None,
    temperature: float | None = None,
    longest: int | None = None,
) -> DataStatistics:
    """Read all documents of `sources` once; `tokenized` are the same sources as token ids, in the same order.

    Shares follow the weights, or with `temperature` the mixture's probabilities; documents of more than `longest`
    tokens are not trained on. `DataError` for an empty source.
    """
    exact, near = ExactDuplicates(), NearDuplicates(NearDuplicateConfig())
    found = []
    number = 0
    with ProgressReporter("measure: documents", total=None) as progress:
        for source in sources:
            statistics = SourceStatistics(source.name)
            document_sizes = []
            for text in source_texts(source, root):
                size = len(text.encode("utf-8", "surrogatepass"))
                document_sizes.append(size)
                statistics.languages[identify_language(text)] += size
                if exact.original(text, number) is not None:
                    statistics.exact_duplicates += 1
                elif near.original(text, number) is not None:
                    statistics.near_duplicates += 1
                number += 1
                progress.update(number, source.name)
            if not document_sizes:
                raise DataError(f"source {source.name!r} holds no documents")
            statistics.documents, statistics.bytes = len(document_sizes), sum(document_sizes)
            statistics.lengths = np.asarray(document_sizes, np.int64)
            found.append(statistics)
    for statistics, tokens in zip(found, tokenized or (), strict=bool(tokenized)):
        statistics.tokens = len(tokens.tokens)
        statistics.lengths = np.diff(tokens.offsets)
    sizes = [source.size for source in found]
    if temperature is None and longest is not None:
        sizes = [int(source.lengths[source.lengths <= longest].sum()) for source in found]
    shares = mixture_probabilities(sizes, [source.weight for source in sources], temperature or 1.0)
    for statistics, share in zip(found, shares, strict=True):
        statistics.share = float(share)
    return DataStatistics(found, "tokens" if tokenized else "bytes")


def source_texts(source: Source, root: str | Path) -> Iterator[str]:
    """The texts of a source's documents; of conversations and prompts, what is said in them."""
    if source.format == "text":
        yield from read_documents(source, root)
        return
    for row in read_rows(resolve(source, root)):
        said = row.get("messages") or row.get("prompt") or ""
        yield said if isinstance(said, str) else conversation_text(said)
