"""The row every builder yields: a prompt with a better and a worse answer, in TRL's conversational format."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Sequence
from random import Random
from typing import Any

from kilonova.data.instruct.conversation import Row

HELD_OUT_PERCENT = 5
_REMEMBERED = 4000
_LOOKED_AT = 24

Pair = dict[str, Any]


def make_pair(kind: str, source: str, prompt: Sequence[dict[str, Any]], chosen: str, rejected: str) -> Pair:
    """A pair of single answers; `kind` says what is wrong with the rejected one."""
    return {
        "prompt": list(prompt),
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
        "source": source,
        "kind": kind,
    }


def lengths(pair: Pair) -> tuple[int, int]:
    """Characters of the chosen and of the rejected answer."""
    first, second = (sum(len(message["content"]) for message in pair[side]) for side in ("chosen", "rejected"))
    return first, second


def is_held_out(pair: Pair) -> bool:
    """Whether a pair belongs to the held-out part: decided by its first user turn, so equal prompts stay together.

    The rows that `kilonova data instruct` holds out are among them.
    """
    prompt = next(message["content"] for message in pair["prompt"] if message["role"] == "user")
    return int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:4], "big") % 100 < HELD_OUT_PERCENT


def last_task(row: Row) -> str:
    """The task that the last turn of a conversation answers."""
    return str(row["task"]).rsplit("+", 1)[-1]


def answer_of(row: Row) -> str | None:
    """The text of the last turn, None where it is no plain answer of the assistant."""
    last = row["messages"][-1]
    is_plain = last["role"] == "assistant" and not last.get("tool_calls") and "tools" not in row
    return last["content"] if is_plain and last.get("content") else None


class AnswerPool:
    """The latest answers seen, as material for wrong ones."""

    def __init__(self) -> None:
        self._answers: deque[tuple[str, str]] = deque(maxlen=_REMEMBERED)
        self._by_task: dict[str, deque[str]] = {}

    def add(self, row: Row) -> None:
        answer = answer_of(row)
        if answer is None:
            return
        task = last_task(row)
        self._answers.append((task, answer))
        self._by_task.setdefault(task, deque(maxlen=_REMEMBERED // 10)).append(answer)

    def same_task(self, task: str, answer: str, rng: Random) -> str | None:
        """Another answer of this task, of much the same length if there is one."""
        return _nearest(self._by_task.get(task, ()), answer, rng)

    def other_task(self, task: str, answer: str, rng: Random) -> str | None:
        """An answer of any other task, of much the same length if there is one."""
        found = [rng.choice(self._answers) for _ in range(_LOOKED_AT)] if self._answers else []
        return _nearest([text for other, text in found if other != task], answer, rng)


def _nearest(candidates: Sequence[str] | deque[str], answer: str, rng: Random) -> str | None:
    different = [text for text in candidates if text.strip().casefold() != answer.strip().casefold()]
    if not different:
        return None
    looked_at = rng.sample(different, min(_LOOKED_AT, len(different)))
    return min(looked_at, key=lambda text: abs(len(text) - len(answer)))
