"""Preference pairs: two answers to one prompt, the first of them better."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from kilonova.core.errors import ConfigError, DataError
from kilonova.core.files import atomic_directory
from kilonova.core.progress import ProgressReporter
from kilonova.data.packing import Batch, best_fit, make_batch
from kilonova.data.sources import Source, read_rows, resolve
from kilonova.data.tokens import TokenizedSource, cache_directory
from kilonova.text.tokenizer import Tokenizer

Messages = list[dict[str, Any]]


@dataclass(frozen=True)
class TokenizedPairs:
    """The pairs of one source: documents `2p` and `2p + 1` are the chosen and the rejected conversation of pair `p`.

    Targets are the tokens of the completion. `margins` is float32 `[P]`, by how much the chosen one should win (0 where
    the file says nothing). `digest` identifies all of it; `left_out` counts pairs that teach nothing, by reason.
    """

    documents: TokenizedSource
    margins: np.ndarray
    digest: str
    left_out: dict[str, int]

    def __len__(self) -> int:
        return len(self.margins)


def tokenize_pairs(
    source: Source, root: str | Path, tokenizer: Tokenizer, fingerprint: str, cache: str | Path
) -> TokenizedPairs:
    """The pairs of a source of `format: preference`, from `cache` when the file was tokenized the same way before.

    Rows are those of TRL's conversational preference format: `prompt`, `chosen` and `rejected`, lists of messages, or
    `chosen` and `rejected` as whole conversations, which then share a beginning; perhaps `tools` and a `margin`. Every
    document ends with the end token of its last turn. Pairs that are identical or have an empty side are left out.
    Raises DataError for a malformed row or where nothing is left, ConfigError for a source of another format.
    """
    if source.format != "preference":
        raise ConfigError(f"source {source.name!r}: format must be preference for this objective")
    directory = cache_directory(source, root, fingerprint, cache)
    if not directory.exists():
        _write(directory, source, root, tokenizer)
    information = json.loads((directory / "source.json").read_text())
    documents = TokenizedSource(
        tokens=np.load(directory / "tokens.npy", mmap_mode="r"),
        trained=np.load(directory / "trained.npy", mmap_mode="r"),
        offsets=np.load(directory / "offsets.npy"),
        num_bytes=information["num_bytes"],
    )
    margins = np.load(directory / "margins.npy")
    return TokenizedPairs(documents, margins, information["digest"], information["left_out"])


def split_pair(row: dict[str, Any]) -> tuple[Messages, Messages, Messages]:
    """Prompt, chosen and rejected of a row; DataError when it has no such messages.

    Without `prompt`, the messages that both conversations begin with are it.
    """
    chosen, rejected, prompt = row.get("chosen"), row.get("rejected"), row.get("prompt")
    for name, messages in (("chosen", chosen), ("rejected", rejected), ("prompt", [] if prompt is None else prompt)):
        if not isinstance(messages, list) or not all(isinstance(m, dict) and "role" in m for m in messages):
            raise DataError(f"{name!r} is not a list of messages (objects with role and content)")
    if prompt is not None:
        return prompt, list(chosen or ()), list(rejected or ())
    chosen, rejected = list(chosen or ()), list(rejected or ())
    shared = _common_length(chosen, rejected)
    return chosen[:shared], chosen[shared:], rejected[shared:]


def encode_pair(
    tokenizer: Tokenizer, prompt: Messages, chosen: Messages, rejected: Messages, tools: Sequence[dict[str, Any]] = ()
) -> tuple[list[int], list[int], int]:
    """Token ids of both conversations, and how many of them are the prompt's, that is, the same in both.

    As in TRL, a completion begins where the conversation departs from the prompt rendered alone. What the template
    adds after the last end token is dropped.
    """
    start = tokenizer.encode_template_messages(prompt, tools, add_generation_prompt=True)
    both = [
        tokenizer.encode_template_messages([*prompt, *completion], tools, add_generation_prompt=False)
        for completion in (chosen, rejected)
    ]
    prompt_length = min(_common_length(start, tokens) for tokens in both)
    for tokens in both:
        stops = [at for at in range(prompt_length, len(tokens)) if tokens[at] in tokenizer.stop_token_ids]
        if stops:
            del tokens[stops[-1] + 1 :]
    return both[0], both[1], prompt_length


@dataclass(frozen=True)
class EncodedPair:
    """A row of a file as token ids; the first `prompt_length` of `chosen` and `rejected` are the prompt's.

    `fault` is why the pair teaches nothing, None when it does.
    """

    row: dict[str, Any]
    prompt: Messages
    chosen: list[int]
    rejected: list[int]
    prompt_length: int
    fault: Literal["identical", "empty"] | None


def encode_pairs(path: str | Path, tokenizer: Tokenizer) -> Iterator[EncodedPair]:
    """The pairs of a file one at a time; DataError that names the line of a malformed row."""
    for number, row in enumerate(read_rows(path), start=1):
        try:
            prompt, chosen, rejected = split_pair(row)
            first, second, start = encode_pair(tokenizer, prompt, chosen, rejected, row.get("tools") or ())
        except DataError as error:
            raise DataError(f"{path}:{number}: {error}") from error
        fault: Literal["identical", "empty"] | None = "identical" if first == second else None
        if not (start and _is_full(chosen) and _is_full(rejected)):
            fault = "empty"
        yield EncodedPair(row, prompt, first, second, start, fault)


class PackedPairs:
    """Rows that hold whole pairs: documents `2p` and `2p + 1` of a row are the chosen and rejected of its `p`-th pair.

    Pairs are packed by best fit; those of more than `sequence_length` tokens are left out (`num_too_long`). Every
    token of a pair is an input, as a reward is read at the last one. Pairs of all sources are numbered end to end.
    """

    def __init__(
        self, sources: Sequence[TokenizedPairs], weights: Sequence[float], sequence_length: int, seed: int
    ) -> None:
        self._sources = sources
        self.sequence_length = sequence_length
        self._starts = np.cumsum([0, *map(len, sources)])
        self.margins = np.concatenate([source.margins for source in sources])
        self.num_too_long = 0
        generator = np.random.default_rng(seed)
        chosen: list[tuple[int, int, int]] = []
        for number, (source, weight) in enumerate(zip(sources, weights, strict=True)):
            lengths = np.diff(source.documents.offsets).reshape(-1, 2).sum(axis=1)
            order = np.concatenate([generator.permutation(len(source)) for _ in range(int(np.ceil(weight)))])
            for pair in order[: max(1, round(weight * len(source)))]:
                if lengths[pair] > sequence_length:
                    self.num_too_long += 1
                else:
                    chosen.append((int(lengths[pair]), number, int(pair)))
        if not chosen:
            raise DataError(f"no pair fits a row of {sequence_length} tokens")
        self.num_pairs = len(chosen)
        self._rows = best_fit(chosen, sequence_length)

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        size = self.sequence_length + 1
        tokens = np.zeros(size, np.int64)
        trained = np.zeros(size, bool)
        documents = np.full(size, -1, np.int64)
        start = 0
        for place, (number, pair) in enumerate(self._rows[index]):
            source = self._sources[number].documents
            first, middle, last = source.offsets[2 * pair : 2 * pair + 3]
            end = start + last - first
            tokens[start:end] = source.tokens[first:last]
            trained[start:end] = source.trained[first:last]
            documents[start : start + middle - first] = 2 * place
            documents[start + middle - first : end] = 2 * place + 1
            start = end
        return tokens, trained, documents

    def pairs(self, index: int) -> list[int]:
        """The numbers of the pairs of a row, in order."""
        return [int(self._starts[number]) + pair for number, pair in self._rows[index]]


@dataclass(frozen=True)
class PairBatch:
    """Rows of whole pairs. `pairs` is int64 `[B, P]`: the number of each pair of each row, -1 where a row has fewer."""

    rows: Batch
    pairs: Tensor

    @property
    def num_pairs(self) -> int:
        return int((self.pairs >= 0).sum())

    def to(self, device: torch.device) -> PairBatch:
        return PairBatch(self.rows.to(device), self.pairs.to(device))


def make_pair_batch(dataset: PackedPairs, indices: Sequence[int]) -> PairBatch:
    """Stack rows into a batch."""
    numbers = [dataset.pairs(index) for index in indices]
    pairs = torch.full((len(numbers), max(map(len, numbers))), -1, dtype=torch.long)
    for row, found in zip(pairs, numbers, strict=True):
        row[: len(found)] = torch.tensor(found)
    return PairBatch(make_batch(dataset, indices), pairs)


def _common_length(first: Sequence[Any], second: Sequence[Any]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))


def _write(directory: Path, source: Source, root: str | Path, tokenizer: Tokenizer) -> None:
    path = resolve(source, root)
    tokens: list[int] = []
    trained: list[bool] = []
    offsets, margins, num_bytes = [0], [], 0
    left_out: Counter[str] = Counter()
    with ProgressReporter(f"tokenize {source.name}: pairs", total=None) as progress:
        for number, pair in enumerate(encode_pairs(path, tokenizer), start=1):
            if pair.fault is not None:
                left_out[pair.fault] += 1
                continue
            for document in (pair.chosen, pair.rejected):
                tokens += document
                trained += [False] * pair.prompt_length + [True] * (len(document) - pair.prompt_length)
                offsets.append(len(tokens))
            try:
                margins.append(float(pair.row.get("margin") or 0.0))
            except (TypeError, ValueError) as error:
                raise DataError(f"{path}:{number}: margin: {error}") from error
            num_bytes += _num_bytes(pair.row)
            progress.update(number, f"{len(tokens) / 1e6:.1f} M tokens")
    if not margins:
        raise DataError(f"source {source.name!r} holds no pairs")
    arrays = {
        "tokens": np.asarray(tokens, np.uint16 if tokenizer.vocab_size <= 2**16 else np.uint32),
        "trained": np.asarray(trained, bool),
        "offsets": np.asarray(offsets, np.int64),
        "margins": np.asarray(margins, np.float32),
    }
    digest = hashlib.sha256()
    with atomic_directory(directory) as temporary:
        for name, array in arrays.items():
            digest.update(array.tobytes())
            np.save(temporary / f"{name}.npy", array)
        information = {"num_bytes": num_bytes, "digest": digest.hexdigest(), "left_out": dict(left_out)}
        (temporary / "source.json").write_text(json.dumps(information))


def _is_full(completion: Messages) -> bool:
    return any(str(message.get("content") or "").strip() or message.get("tool_calls") for message in completion)


def _num_bytes(row: dict[str, Any]) -> int:
    """Bytes of text of both conversations."""
    prompt = row.get("prompt") or []
    messages = (*prompt, *row["chosen"], *prompt, *row["rejected"])
    return sum(len(str(message.get("content") or "").encode()) for message in messages)
