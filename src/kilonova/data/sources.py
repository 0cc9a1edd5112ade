"""Text sources: files of documents or conversations, read one at a time."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import zstandard

from kilonova.core.errors import ConfigError, DataError

# Files compressed with zstd's --long need a window larger than the default limit.
_MAX_ZSTD_WINDOW = 2**31


class SourceFile(Protocol):
    """A source of whatever kind that is a file below a root; `root_setting` is what a recipe calls that root."""

    root_setting: ClassVar[str]

    @property
    def name(self) -> str: ...

    @property
    def path(self) -> str: ...

    @property
    def origin(self) -> str: ...


@dataclass(frozen=True)
class Source:
    """One corpus of a recipe.

    `path` is a `.jsonl`, `.jsonl.zst` or `.txt` file below the recipe's data root (a `.txt` file is one document).
    `template` makes a document of a JSON row, as in `"{title}\\n\\n{text}"`; a field that is a list is joined by line
    ends. With `format: chat` rows are conversations (`messages`, optional `tools`) instead, with `format: verifiable`
    prompts (`prompt`, a list of messages) whose answers a `verifier` checks, with `format: preference` pairs (`prompt`,
    `chosen` and `rejected`, lists of messages; see `tokenize_pairs`). `weight` is how often the source is seen
    in one pass over the mixture: 0.5 takes half of it, 3 repeats it three times. `origin` and `licence` go into the
    model card.
    """

    root_setting: ClassVar[str] = "data.root"

    name: str
    path: str
    template: str = "{text}"
    format: Literal["text", "chat", "verifiable", "preference"] = "text"
    weight: float = 1.0
    origin: str = ""
    licence: str = ""

    def __post_init__(self) -> None:
        if self.weight <= 0:
            raise ConfigError(f"source {self.name!r}: weight must be above 0")


def read_rows(path: str | Path) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects of a `.jsonl` or `.jsonl.zst` file."""
    path = Path(path)
    for number, line in enumerate(_open_lines(path), start=1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}:{number}: not valid JSON: {error}") from error
        if not isinstance(row, dict):
            raise DataError(f"{path}:{number}: a JSON object is expected, not {type(row).__name__}")
        yield row


def read_documents(source: Source, root: str | Path) -> Iterator[str]:
    """Yield the texts of a `text` source, empty ones left out."""
    path = resolve(source, root)
    if path.suffix == ".txt":
        yield path.read_text(encoding="utf-8")
        return
    for row in read_rows(path):
        try:
            text = row_text(row, source.template)
        except DataError as error:
            raise DataError(f"{path}: {error}") from error
        if text:
            yield text


def row_text(row: dict[str, Any], template: str) -> str:
    """The text that `template` makes of a row, stripped; a field that is a list is joined by line ends."""
    fields = {key: "\n".join(map(str, value)) if isinstance(value, list) else value for key, value in row.items()}
    try:
        return template.format_map(fields).strip()
    except KeyError as error:
        raise DataError(f"rows have no field {error} (they have {', '.join(row)})") from error


def conversation_text(messages: Sequence[dict[str, Any]]) -> str:
    """What is said in `messages`, one turn a paragraph."""
    return "\n\n".join(str(message.get("content") or "") for message in messages).strip()


def resolve(source: SourceFile, root: str | Path) -> Path:
    """The source's file; `DataError` when it is not there."""
    path = Path(root) / source.path
    if not path.is_file():
        origin = f"; it comes from {source.origin}" if source.origin else ""
        raise DataError(
            f"source {source.name!r}: no file {path} ({source.root_setting} is the folder that holds it{origin})"
        )
    return path


def _open_lines(path: Path) -> Iterator[str]:
    if path.suffixes[-2:] == [".jsonl", ".zst"]:
        with path.open("rb") as file:
            try:
                stream = zstandard.ZstdDecompressor(max_window_size=_MAX_ZSTD_WINDOW).stream_reader(file)
                yield from io.TextIOWrapper(stream, encoding="utf-8")
            except zstandard.ZstdError as error:
                raise DataError(f"{path}: not a readable zstd file: {error}") from error
    elif path.suffix == ".jsonl":
        with path.open(encoding="utf-8") as lines:
            yield from lines
    else:
        raise DataError(f"{path}: unknown file type; use .jsonl, .jsonl.zst or .txt")
