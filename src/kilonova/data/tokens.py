"""Sources as token ids on disk, made once and memory-mapped afterwards."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kilonova.core.errors import DataError
from kilonova.core.files import atomic_directory
from kilonova.core.progress import ProgressReporter
from kilonova.data.sources import Source, read_documents, read_rows, resolve
from kilonova.text.bpe import END_OF_TEXT
from kilonova.text.tokenizer import Tokenizer

# Long documents are encoded in pieces cut at line ends, which bounds memory; a cut never splits a word.
_PIECE_CHARACTERS = 200_000


@dataclass(frozen=True)
class TokenizedSource:
    """Documents of one source, end to end.

    `tokens` is uint16 or uint32 `[N]`; `trained` is bool `[N]`, whether a token is a target of the loss; document `i`
    is `tokens[offsets[i]:offsets[i + 1]]`.
    """

    tokens: np.ndarray
    trained: np.ndarray
    offsets: np.ndarray
    num_bytes: int


def tokenize_source(
    source: Source, root: str | Path, tokenizer: Tokenizer, fingerprint: str, cache: str | Path
) -> TokenizedSource:
    """Token ids of `source`, read from `cache` when the same file was tokenized the same way before.

    A text document is all target and ends with `<|endoftext|>` (else the tokenizer's end token); a conversation's
    targets are the assistant's turns, their end tokens included. `fingerprint` identifies the tokenizer.
    """
    directory = cache_directory(source, root, fingerprint, cache)
    if not directory.exists():
        _write(directory, _encoded_documents(source, root, tokenizer), source.name, tokenizer.vocab_size)
    information = json.loads((directory / "source.json").read_text())
    return TokenizedSource(
        tokens=np.load(directory / "tokens.npy", mmap_mode="r"),
        trained=np.load(directory / "trained.npy", mmap_mode="r"),
        offsets=np.load(directory / "offsets.npy"),
        num_bytes=information["num_bytes"],
    )


def cache_directory(source: Source, root: str | Path, fingerprint: str, cache: str | Path) -> Path:
    """Where below `cache` the token ids of `source` are, or would be: a name for this file, read in this way."""
    status = resolve(source, root).stat()
    identity = {
        "source": {key: value for key, value in asdict(source).items() if key in ("path", "template", "format")},
        "file": [status.st_size, status.st_mtime_ns],
        "tokenizer": fingerprint,
    }
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    return Path(cache) / f"{source.name}-{key}"


def tokenizer_fingerprint(directory: str | Path) -> str:
    """A digest of the files that decide how text becomes tokens."""
    digest = hashlib.sha256()
    for name in ("tokenizer.json", "chat_template.jinja"):
        path = Path(directory) / name
        digest.update(path.read_bytes() if path.exists() else b"-")
    return digest.hexdigest()


Encoded = tuple[list[int], list[bool] | None, int]


def _encoded_documents(source: Source, root: str | Path, tokenizer: Tokenizer) -> Iterator[Encoded]:
    """Token ids, which of them are targets (None: all), and the bytes of text, for each document."""
    if source.format == "chat":
        for row in read_rows(resolve(source, root)):
            tokens, trained = encode_conversation(tokenizer, row["messages"], row.get("tools") or ())
            yield tokens, trained, sum(len((m.get("content") or "").encode()) for m in row["messages"])
        return
    end = tokenizer.token_id(END_OF_TEXT)
    if end is None:
        end = tokenizer.eos_token_id
    for text in read_documents(source, root):
        tokens = [token for piece in _pieces(text) for token in tokenizer.encode(piece)]
        yield [*tokens, end], None, len(text.encode())


def encode_conversation(
    tokenizer: Tokenizer, messages: list[dict], tools: list[dict] | tuple = ()
) -> tuple[list[int], list[bool]]:
    """A rendered conversation and, for each token, whether the assistant wrote it (its end token included)."""
    tokens = tokenizer.encode_template_messages(messages, tools, add_generation_prompt=False)
    trained = [False] * len(tokens)
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        start = len(tokenizer.encode_template_messages(messages[:index], tools, add_generation_prompt=True))
        upto = tokenizer.encode_template_messages(messages[: index + 1], tools, add_generation_prompt=False)
        if tokens[: len(upto)] != upto:
            raise DataError("the chat template renders earlier turns differently once later ones follow")
        stops = [at for at in range(start, len(upto)) if upto[at] in tokenizer.stop_token_ids]
        end = stops[-1] + 1 if stops else len(upto)
        trained[start:end] = [True] * (end - start)
    return tokens, trained


def _pieces(text: str) -> Iterator[str]:
    start = 0
    while len(text) - start > _PIECE_CHARACTERS:
        cut = text.rfind("\n", start + 1, start + _PIECE_CHARACTERS)
        cut = cut if cut > start else start + _PIECE_CHARACTERS
        yield text[start:cut]
        start = cut
    yield text[start:]


def _write(directory: Path, documents: Iterator[Encoded], name: str, vocab_size: int) -> None:
    """Write the arrays as they grow, so that memory holds one document at a time."""
    offsets = array("q", [0])
    num_bytes = 0
    with atomic_directory(directory) as temporary:
        with (
            _GrowingArray(temporary / "tokens.npy", np.uint16 if vocab_size <= 2**16 else np.uint32) as tokens,
            _GrowingArray(temporary / "trained.npy", bool) as trained,
            ProgressReporter(f"tokenize {name}: documents", total=None) as progress,
        ):
            for count, (ids, targets, size) in enumerate(documents, start=1):
                tokens.append(ids)
                trained.append(np.ones(len(ids), bool) if targets is None else targets)
                offsets.append(offsets[-1] + len(ids))
                num_bytes += size
                progress.update(count, f"{offsets[-1] / 1e6:.1f} M tokens")
        if len(offsets) == 1:
            raise DataError(f"source {name!r} holds no documents")
        np.save(temporary / "offsets.npy", np.frombuffer(offsets, np.int64))
        (temporary / "source.json").write_text(json.dumps({"num_bytes": num_bytes}))


class _GrowingArray:
    """A one-dimensional `.npy` file that is appended to; the header leaves room for the length, which comes last."""

    def __init__(self, path: Path, dtype: npt.DTypeLike) -> None:
        self._file = path.open("wb")
        self._dtype = np.dtype(dtype)
        self._length = 0
        self._write_header()

    def __enter__(self) -> _GrowingArray:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.seek(0)
        self._write_header()
        self._file.close()

    def append(self, values: npt.ArrayLike) -> None:
        part = np.asarray(values, self._dtype)
        self._file.write(part.tobytes())
        self._length += len(part)

    def _write_header(self) -> None:
        description = np.lib.format.dtype_to_descr(self._dtype)
        header = {"descr": description, "fortran_order": False, "shape": (self._length,)}
        np.lib.format.write_array_header_1_0(self._file, header)
