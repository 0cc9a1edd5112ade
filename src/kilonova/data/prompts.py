"""Prompts for a model to answer, and what checks the answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kilonova.core.errors import DataError
from kilonova.core.progress import ProgressReporter
from kilonova.data.preferences import split_pair
from kilonova.data.sources import Source, read_rows, resolve
from kilonova.data.verifiers import Verifier, make_verifier
from kilonova.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Prompt:
    """The token ids of a conversation up to where the answer begins, and the answer's verifier if there is one."""

    token_ids: tuple[int, ...]
    verifier: Verifier | None = None


@dataclass(frozen=True)
class PromptSet:
    """Prompts of at most a given length; `sizes` counts prompts, tokens, and prompts left out, of each source."""

    prompts: tuple[Prompt, ...]
    sizes: dict[str, dict[str, int]]


def read_prompts(
    sources: Sequence[Source], root: str | Path, tokenizer: Tokenizer, max_tokens: int, seed: int
) -> PromptSet:
    """The prompts of a mixture of sources, each taken `weight` times; DataError when none is left.

    Rows of `format: verifiable` have a `prompt`, a list of messages, and a `verifier`. Of those of `chat` the
    assistant's last turn is left out, of those of `preference` both answers. `max_tokens` bounds a prompt.
    """
    generator = np.random.default_rng(seed)
    chosen: list[Prompt] = []
    sizes = {}
    for source in sources:
        prompts = list(_prompts(source, root, tokenizer, generator))
        short = [prompt for prompt in prompts if len(prompt.token_ids) <= max_tokens]
        tokens = sum(len(prompt.token_ids) for prompt in short)
        sizes[source.name] = {"documents": len(short), "tokens": tokens, "too_long": len(prompts) - len(short)}
        chosen += short
    if not chosen:
        raise DataError(f"no prompt has at most {max_tokens} tokens (data.sequence_length less rollout.max_new_tokens)")
    return PromptSet(tuple(chosen), sizes)


def _prompts(
    source: Source, root: str | Path, tokenizer: Tokenizer, generator: np.random.Generator
) -> Iterator[Prompt]:
    """Those of a source in random order, `weight` times."""
    if source.format == "text":
        raise DataError(f"source {source.name!r}: format text has no prompts; use verifiable, chat or preference")
    path = resolve(source, root)
    rows = list(read_rows(path))
    if not rows:
        raise DataError(f"source {source.name!r} holds no prompts")
    order = np.concatenate([generator.permutation(len(rows)) for _ in range(int(np.ceil(source.weight)))])
    order = order[: max(1, round(source.weight * len(rows)))]
    with ProgressReporter(f"tokenize {source.name}: prompts", len(order)) as progress:
        for count, index in enumerate(order.tolist(), start=1):
            row = rows[index]
            try:
                messages = _messages(row, source.format)
                verifier = make_verifier(row["verifier"]) if source.format == "verifiable" else None
            except DataError as error:
                raise DataError(f"{path}:{index + 1}: {error}") from error
            except KeyError as error:
                fields = ", ".join(row)
                raise DataError(f"{path}:{index + 1}: the row has no field {error} (it has {fields})") from error
            yield Prompt(tuple(tokenizer.encode_template_messages(messages, row.get("tools") or ())), verifier)
            progress.update(count)


def _messages(row: dict[str, Any], format: str) -> list[dict[str, Any]]:
    """The turns before the answer."""
    if format == "preference":
        messages = split_pair(row)[0]
    elif format == "verifiable":
        messages = row["prompt"]
    else:
        messages = row["messages"]
        while messages and messages[-1]["role"] == "assistant":
            messages = messages[:-1]
    if not isinstance(messages, list) or not messages:
        raise DataError("the prompt must be a list of messages that is not empty")
    return messages
