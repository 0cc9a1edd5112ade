"""What cleaning found, for people and for programs."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.table import Table

from kilonova.data.contamination import EvaluationFile

_EXAMPLES = 3
_EXCERPT = 120
_LANGUAGES = 8


@dataclass
class Count:
    """A number of documents and the UTF-8 bytes of their texts."""

    documents: int = 0
    bytes: int = 0

    def add(self, size: int) -> None:
        self.documents += 1
        self.bytes += size


@dataclass
class Example:
    """A dropped document: where it stands, what the step saw, and how it begins."""

    location: str
    detail: str
    excerpt: str


@dataclass
class CleanReport:
    """Documents read and kept by file, dropped by reason (with the first examples), and by language."""

    evaluation: dict[str, EvaluationFile]
    read: dict[str, Count] = field(default_factory=lambda: defaultdict(Count))
    kept_of: dict[str, Count] = field(default_factory=lambda: defaultdict(Count))
    dropped: dict[str, Count] = field(default_factory=lambda: defaultdict(Count))
    examples: dict[str, list[Example]] = field(default_factory=lambda: defaultdict(list))
    languages: dict[str, Count] = field(default_factory=lambda: defaultdict(Count))
    documents: int = 0
    kept: int = 0

    def add(self, file: str, text: str, location: str, language: str, reason: str | None, detail: str) -> None:
        """Count one document; `reason` None means that it stays."""
        size = len(text.encode("utf-8", "surrogatepass"))
        self.documents += 1
        self.read[file].add(size)
        self.languages[language].add(size)
        if reason is None:
            self.kept += 1
            self.kept_of[file].add(size)
            return
        self.dropped[reason].add(size)
        if len(self.examples[reason]) < _EXAMPLES:
            excerpt = " ".join(text[: 4 * _EXCERPT].encode(errors="backslashreplace").decode().split())
            shown = excerpt if len(excerpt) <= _EXCERPT else excerpt[:_EXCERPT] + "…"
            self.examples[reason].append(Example(location, detail, shown))

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON values; shares are left to the reader."""
        return {
            "documents": self.documents,
            "kept": self.kept,
            "files": {
                name: {"read": asdict(count), "kept": asdict(self.kept_of[name])} for name, count in self.read.items()
            },
            "dropped": {
                reason: asdict(count) | {"examples": [asdict(example) for example in self.examples[reason]]}
                for reason, count in _by_size(self.dropped)
            },
            "languages": {code: asdict(count) for code, count in _by_size(self.languages)},
            "evaluation": {
                name: {
                    "rows": found.rows,
                    "tested": found.tested,
                    "touched": sorted(found.touched),
                    "contaminated": sorted(found.contaminated),
                }
                for name, found in self.evaluation.items()
            },
        }

    def tables(self) -> list[Table]:
        """For the terminal: what was dropped why, what is left of each file, and the evaluation files touched."""
        total = max(1, sum(count.bytes for count in self.read.values()))
        dropped = Table(title=f"{self.kept:,} of {self.documents:,} documents kept")
        for name in ("dropped for", "documents", "of documents", "of bytes", "for example"):
            dropped.add_column(name, justify="left" if name in ("dropped for", "for example") else "right")
        for reason, count in _by_size(self.dropped):
            first = self.examples[reason][0]
            dropped.add_row(
                reason,
                f"{count.documents:,}",
                f"{count.documents / max(1, self.documents):.1%}",
                f"{count.bytes / total:.1%}",
                f"{first.location} ({first.detail})" if first.detail else first.location,
            )
        files = Table(title="files")
        for name in ("file", "documents", "kept", "MB", "MB kept"):
            files.add_column(name, justify="left" if name == "file" else "right")
        for name, count in self.read.items():
            kept = self.kept_of[name]
            sizes = (
                f"{count.documents:,}",
                f"{kept.documents:,}",
                f"{count.bytes / 1e6:.2f}",
                f"{kept.bytes / 1e6:.2f}",
            )
            files.add_row(name, *sizes)
        languages = Table(title="languages of all documents")
        for name in ("language", "documents", "of bytes"):
            languages.add_column(name, justify="left" if name == "language" else "right")
        for code, count in _by_size(self.languages)[:_LANGUAGES]:
            languages.add_row(code, f"{count.documents:,}", f"{count.bytes / total:.1%}")
        tables = [dropped, files, languages]
        if self.evaluation:
            evaluation = Table(title="evaluation rows found in what would otherwise be kept")
            for name in ("file", "rows", "long enough to test", "share a run of words", "contaminated"):
                evaluation.add_column(name, justify="left" if name == "file" else "right")
            for name, found in self.evaluation.items():
                counts = (found.rows, found.tested, len(found.touched), len(found.contaminated))
                evaluation.add_row(name, *(f"{number:,}" for number in counts))
            tables.append(evaluation)
        return tables


def _by_size(counts: dict[str, Count]) -> list[tuple[str, Count]]:
    return sorted(counts.items(), key=lambda item: (-item[1].documents, item[0]))
