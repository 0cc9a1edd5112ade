"""Cleaning of training files: what is dropped, why, and what is left."""

from __future__ import annotations

import io
import json
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

import zstandard

from kilonova.core.errors import ConfigError, DataError
from kilonova.core.files import atomic_directory
from kilonova.core.progress import ProgressReporter
from kilonova.data.clean_report import CleanReport
from kilonova.data.contamination import ContaminationConfig, EvaluationIndex
from kilonova.data.duplicates import ExactDuplicates, NearDuplicateConfig, NearDuplicates
from kilonova.data.language import identify_language
from kilonova.data.quality import QualityConfig, quality_violation
from kilonova.data.sources import conversation_text, read_rows, row_text
from kilonova.data.training_rows import ConversationRules, PreferenceRules, RowRules

Format = Literal["text", "chat", "preference"]


@dataclass(frozen=True, kw_only=True)
class CleanConfig:
    """What is dropped.

    `format` says what rows are: documents of which `template` makes the text, conversations, or preference pairs.
    `languages` are kept (ISO 639 codes; none given keeps all). `quality` and `near_duplicates` apply to documents, and
    None leaves the step out; `rows` applies to the other formats, whose rows may well be worded alike.
    """

    format: Format = "text"
    template: str = "{text}"
    languages: tuple[str, ...] = ()
    quality: QualityConfig | None = field(default_factory=QualityConfig)
    rows: RowRules = field(default_factory=RowRules)
    near_duplicates: NearDuplicateConfig | None = field(default_factory=NearDuplicateConfig)
    contamination: ContaminationConfig = field(default_factory=ContaminationConfig)


@dataclass(frozen=True)
class Document:
    """One document or row: the text that is judged, where it stands, and what is written if it stays."""

    text: str
    location: str
    row: dict[str, Any] | None


def clean(inputs: Sequence[Path], output: Path, config: CleanConfig, against: Sequence[Path] = ()) -> CleanReport:
    """Write what is good of `inputs` into the folder `output`, under the same file names, and say what was dropped.

    Inputs are `.jsonl`, `.jsonl.zst` or `.txt` files, read in order, one document at a time. A document meets the steps
    in the order exact duplicates, language, quality, near duplicates, contamination by the evaluation files `against`,
    and the first that objects drops it; of duplicates the first one stays. Equal inputs give equal files.

    Raises `ConfigError` when `output` holds files already or two inputs have one name, `DataError` for unreadable
    inputs; then nothing is written.
    """
    names = [path.name for path in inputs]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise ConfigError(f"two inputs are called {doubled[0]}, and both would be written to {output / doubled[0]}")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ConfigError(f"--output: {output} is not an empty folder; name a new one")
    judge = _Judge(config, against)
    report = CleanReport(evaluation=judge.evaluation.files)
    with atomic_directory(output) as temporary, ProgressReporter("clean: documents", total=None) as progress:
        for path in inputs:
            judge.begin(path)
            with _writer(temporary / path.name) as write:
                for document in read_documents(path, config):
                    language, reason, detail = judge.verdict(document)
                    report.add(path.name, document.text, document.location, language, reason, detail)
                    if reason is None:
                        write(document)
                    progress.update(report.documents, f"{report.kept} kept, {path.name}")
    return report


def read_documents(path: Path, config: CleanConfig) -> Iterator[Document]:
    """The documents of a file, those without text included."""
    if path.suffix == ".txt":
        if config.format != "text":
            raise ConfigError(f"{path}: rows of format {config.format!r} come from .jsonl files")
        yield Document(path.read_text(encoding="utf-8"), path.name, None)
        return
    for number, row in enumerate(read_rows(path), start=1):
        location = f"{path.name}:{number}"
        if config.format == "text":
            try:
                text = row_text(row, config.template)
            except DataError as error:
                raise DataError(f"{path}:{number}: {error}; --template makes a text of the fields") from error
        else:
            keys = ("messages",) if config.format == "chat" else ("prompt", "chosen", "rejected")
            parts = [row[key] for key in keys if isinstance(row.get(key), list)]
            text = "\n\n".join(conversation_text([m for m in part if isinstance(m, dict)]) for part in parts)
        yield Document(text, location, row)


class _Judge:
    """The steps with what they remember of earlier documents."""

    def __init__(self, config: CleanConfig, against: Sequence[Path]) -> None:
        self._config = config
        self._exact = ExactDuplicates()
        self._near: NearDuplicates | None = None
        self._rules: ConversationRules | PreferenceRules | None = None
        if config.format == "text":
            self._near = NearDuplicates(config.near_duplicates) if config.near_duplicates else None
        else:
            self._rules = (ConversationRules if config.format == "chat" else PreferenceRules)(config.rows)
        self.evaluation = EvaluationIndex(against, config.contamination)
        self._number = 0
        self._begins: list[int] = []
        self._names: list[str] = []

    def begin(self, path: Path) -> None:
        self._begins.append(self._number)
        self._names.append(path.name)

    def verdict(self, document: Document) -> tuple[str, str | None, str]:
        """The document's language, the step that drops it (None: it stays), and what that step saw."""
        number = self._number
        self._number += 1
        text = document.text
        language = identify_language(text)
        if not _is_unicode(text):
            return language, "invalid Unicode", ""
        if self._rules is not None and document.row is not None:
            problem = self._rules.problem(document.row)
            if problem:
                return language, f"row: {problem}", ""
        else:
            if not text.strip():
                return language, "empty", ""
            original = self._exact.original(text, number)
            if original is not None:
                return language, "exact duplicate", f"of {self._location(original)}"
        if self._config.languages and language not in self._config.languages:
            return language, "language", language
        if self._rules is None and self._config.quality is not None:
            violation = quality_violation(text, self._config.quality, language)
            if violation is not None:
                return language, f"quality: {violation.rule}", f"{violation.value:g}"
        if self._near is not None:
            original = self._near.original(text, number)
            if original is not None:
                return language, "near duplicate", f"of {self._location(original)}"
        worst = next(iter(self.evaluation.overlaps(text)), None)
        if worst is not None and worst.contaminated:
            return language, "contamination", f"{worst.words} words of row {worst.row} of {Path(worst.file).name}"
        return language, None, ""

    def _location(self, number: int) -> str:
        file = bisect_right(self._begins, number) - 1
        return f"{self._names[file]}:{number - self._begins[file] + 1}"


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@contextmanager
def _writer(path: Path) -> Iterator[Any]:
    """A function that appends a document to `path`, in the file type its name says."""
    with path.open("wb") as file:
        stream: IO[bytes] | Any = (
            zstandard.ZstdCompressor().stream_writer(file, closefd=False) if path.suffix == ".zst" else file
        )
        # Half of a surrogate pair has no UTF-8 form; its backslash form is its JSON escape.
        text = io.TextIOWrapper(stream, encoding="utf-8", errors="backslashreplace", newline="\n", write_through=True)

        def write(document: Document) -> None:
            line = document.text if document.row is None else json.dumps(document.row, ensure_ascii=False) + "\n"
            text.write(line)

        yield write
        text.flush()
        text.detach()
        if stream is not file:
            stream.close()
