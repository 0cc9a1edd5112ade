"""Rows for instruction and preference training, and what makes one useless.

A conversation row is `{"messages": [...]}` with optional `tools`; a preference row is `{"prompt": [...], "chosen":
[...], "rejected": [...]}`, all lists of messages (the conversational formats of TRL).
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from kilonova.core.errors import ConfigError

Row = dict[str, Any]
_ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True, kw_only=True)
class RowRules:
    """Limits on one row: the characters of all its messages together, None for no limit."""

    max_characters: int | None = 100_000

    def __post_init__(self) -> None:
        if self.max_characters is not None and self.max_characters < 1:
            raise ConfigError("rows.max_characters: must be at least 1")


@dataclass
class RowReport:
    """How many rows were read and kept, and how many were dropped for which reason."""

    rows: int = 0
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)


def clean_conversations(rows: Iterable[Row], rules: RowRules | None = None) -> tuple[list[Row], RowReport]:
    """The usable conversation rows, in order, and a report on the others; a repeated row is dropped too."""
    return _clean(rows, ConversationRules(rules or RowRules()).problem)


def clean_preferences(rows: Iterable[Row], rules: RowRules | None = None) -> tuple[list[Row], RowReport]:
    """The usable preference rows, in order, and a report on the others.

    Of pairs that are repeated, or that contradict each other by the same answers the other way round, the first stays.
    """
    return _clean(rows, PreferenceRules(rules or RowRules()).problem)


class ConversationRules:
    """Judges conversation rows one after another; remembers 16 bytes of each for repetitions."""

    def __init__(self, rules: RowRules) -> None:
        self._rules = rules
        self._seen: set[bytes] = set()

    def problem(self, row: Row) -> str | None:
        """Why the row is useless, or None."""
        messages = _messages(row.get("messages"))
        if not messages:
            return "malformed messages"
        turns = [message for message in messages if message["role"] != "system"]
        if not turns or turns[0]["role"] != "user":
            return "does not begin with the user"
        if turns[-1]["role"] != "assistant":
            return "does not end with the assistant"
        roles = [message["role"] for message in turns]
        if any(first == second and first != "tool" for first, second in pairwise(roles)):
            return "two turns of one role in a row"
        problem = _empty_turn(turns) or _too_long(messages, self._rules)
        return problem or _repeated(self._seen, messages, row.get("tools"))


class PreferenceRules:
    """Judges preference rows one after another; remembers 16 bytes of each for repetitions."""

    def __init__(self, rules: RowRules) -> None:
        self._rules = rules
        self._seen: set[bytes] = set()

    def problem(self, row: Row) -> str | None:
        """Why the row is useless, or None."""
        prompt, chosen, rejected = (_messages(row.get(key)) for key in ("prompt", "chosen", "rejected"))
        if not (prompt and chosen and rejected):
            return "malformed messages"
        if prompt[-1]["role"] not in ("user", "tool"):
            return "the prompt does not end with the user"
        if any(answer[0]["role"] != "assistant" or answer[-1]["role"] != "assistant" for answer in (chosen, rejected)):
            return "an answer is not the assistant's"
        problem = _empty_turn([*prompt, *chosen, *rejected])
        if problem:
            return problem
        if _said(chosen) == _said(rejected):
            return "chosen and rejected are the same"
        problem = _too_long([*prompt, *chosen], self._rules) or _too_long([*prompt, *rejected], self._rules)
        if problem:
            return problem
        if _digest(prompt, rejected, chosen) in self._seen:
            return "contradicts an earlier pair"
        return _repeated(self._seen, prompt, chosen, rejected)


def _clean(rows: Iterable[Row], problem_of: Callable[[Row], str | None]) -> tuple[list[Row], RowReport]:
    report = RowReport()
    kept = []
    for row in rows:
        report.rows += 1
        problem = problem_of(row)
        if problem is None:
            kept.append(row)
        else:
            report.dropped[problem] += 1
    report.kept = len(kept)
    return kept, report


def _messages(value: Any) -> list[Row]:
    """`value` if it is a list of messages, else an empty list."""
    well_formed = isinstance(value, list) and all(
        isinstance(message, dict) and message.get("role") in _ROLES and isinstance(message.get("content"), str | None)
        for message in value
    )
    return value if well_formed else []


def _empty_turn(messages: list[Row]) -> str | None:
    for message in messages:
        if not (message.get("content") or "").strip() and not message.get("tool_calls"):
            if message["role"] == "assistant":
                return "empty answer"
            if message["role"] == "user":
                return "empty question"
    return None


def _too_long(messages: list[Row], rules: RowRules) -> str | None:
    characters = sum(len(message.get("content") or "") for message in messages)
    return "too long" if rules.max_characters is not None and characters > rules.max_characters else None


def _repeated(seen: set[bytes], *parts: Any) -> str | None:
    digest = _digest(*parts)
    if digest in seen:
        return "repeats an earlier row"
    seen.add(digest)
    return None


def _said(messages: list[Row]) -> list[tuple[str, str, Any]]:
    """Messages as they are compared: white space at the ends and between words does not count."""
    return [
        (message["role"], " ".join((message.get("content") or "").split()), message.get("tool_calls"))
        for message in messages
    ]


def _digest(*parts: Any) -> bytes:
    said = [_said(part) if part and "role" in part[0] else part for part in parts]
    return hashlib.blake2b(json.dumps(said, sort_keys=True).encode(), digest_size=16).digest()
