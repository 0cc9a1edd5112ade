"""The row every builder yields: one conversation in the chat format of Hugging Face templates."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from random import Random
from typing import Any, TypeVar

CONTEXT_TOKENS = 1024
ASCII_BYTES_PER_TOKEN = 3.0
OTHER_BYTES_PER_TOKEN = 1.6
JSON_BYTES_PER_TOKEN = 2.2
TOKENS_PER_MESSAGE = 6
TOKENS_OF_TOOL_PROMPT = 60

Row = dict[str, Any]
Item = TypeVar("Item")

_SENTENCE_END = re.compile(r"(?<=[.!?])[\"'”’)]*\s+(?=[\"'“‘(]*[A-ZÀ-ÞА-Я0-9])")
_ABBREVIATION = re.compile(
    r"(?:\b(?:Mr|Mrs|Ms|Dr|St|Prof|Capt|Col|Gen|Sen|Rev|Jr|Sr|vs|etc|Fig|No|Vol|cf|approx|ca|Inc|Ltd|Co|est|Mt)"
    r"|\b[A-Z]|\b[ap]\.m|\b[ei]\.[eg])\.[\"')]*$"
)


def conversation(
    source: str, task: str, messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]] = ()
) -> Row:
    """A row of `messages`, with the JSON schemas of `tools` beside them when there are any."""
    row: Row = {"messages": list(messages), "source": source, "task": task}
    if tools:
        row["tools"] = list(tools)
    return row


def exchange(source: str, task: str, prompt: str, answer: str, *, system: str | None = None) -> Row:
    """A row of one question and one answer, under a system prompt if there is one."""
    return turns(source, task, [prompt, answer], system=system)


def turns(source: str, task: str, texts: Sequence[str], *, system: str | None = None) -> Row:
    """A row of alternating turns, the user's first."""
    messages = [{"role": "system", "content": system}] if system else []
    messages += [{"role": ("user", "assistant")[i % 2], "content": text.strip()} for i, text in enumerate(texts)]
    return conversation(source, task, messages)


def estimated_tokens(row: Row) -> int:
    """An estimate, meant to be high, of the tokens of a row in a byte-level vocabulary of about 8000 entries."""
    tokens = 0.0
    for message in row["messages"]:
        content = str(message.get("content") or "")
        ascii_bytes = sum(character < "\x80" for character in content)
        per_token = JSON_BYTES_PER_TOKEN if message["role"] == "tool" else ASCII_BYTES_PER_TOKEN
        tokens += ascii_bytes / per_token + (len(content.encode()) - ascii_bytes) / OTHER_BYTES_PER_TOKEN
        if "tool_calls" in message:
            tokens += len(str(message["tool_calls"]).encode()) / JSON_BYTES_PER_TOKEN
    if tools := row.get("tools"):
        tokens += TOKENS_OF_TOOL_PROMPT + len(str(tools).encode()) / JSON_BYTES_PER_TOKEN
    return round(tokens) + TOKENS_PER_MESSAGE * len(row["messages"])


def fits(row: Row) -> bool:
    """Whether a row fits the context and no message is empty."""
    complete = all(message.get("content") or message.get("tool_calls") for message in row["messages"])
    return complete and estimated_tokens(row) <= CONTEXT_TOKENS - 24


def sentences(text: str) -> list[str]:
    """Splits prose into sentences at end marks that a capital letter follows, sparing common abbreviations."""
    found: list[str] = []
    for piece in _SENTENCE_END.split(" ".join(text.split())):
        if found and _ABBREVIATION.search(found[-1]):
            found[-1] += " " + piece
        elif piece:
            found.append(piece)
    return found


def clip(text: str, max_bytes: int) -> str:
    """The longest run of whole sentences from the start of `text` within `max_bytes`, or of words if one is longer."""
    text = " ".join(text.split())
    if len(text.encode()) <= max_bytes:
        return text
    for units in (sentences(text), text.split(" ")):
        kept, size = 0, -1
        for unit in units:
            size += len(unit.encode()) + 1
            if size > max_bytes:
                break
            kept += 1
        if kept:
            return " ".join(units[:kept])
    return text.encode()[:max_bytes].decode(errors="ignore")


def shuffled(rows: Iterator[Item], rng: Random) -> list[Item]:
    """All items in random order."""
    items = list(rows)
    rng.shuffle(items)
    return items
