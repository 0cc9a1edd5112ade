"""Tool calls in generated text: `<tool_call>` line, a JSON object with `name` and `arguments`, `</tool_call>` line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

OPENING = "<tool_call>"
CLOSING = "</tool_call>"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call, and the text it was read from, marks included."""

    name: str
    arguments: dict[str, Any]
    text: str


def parse_tool_call(text: str) -> ToolCall | None:
    """The call that `text`, marks included, is; None when it is not one.

    A call is a JSON object with a non-empty string `name`; `arguments` must be an object and may be left out.
    """
    try:
        call = json.loads(text.strip().removeprefix(OPENING).removesuffix(CLOSING), parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return None
    if not isinstance(call, dict):
        return None
    name, arguments = call.get("name"), call.get("arguments", {})
    if not isinstance(name, str) or not name or not isinstance(arguments, dict):
        return None
    return ToolCall(name, arguments, text)


class ToolCallSplitter:
    """Splits a stream of text into plain text and complete tool calls.

    The line end before a call belongs to the call, as chat templates put it there. Text is held back only while it may
    still begin or be a call; what turns out not to be one comes out as the text it was.
    """

    def __init__(self) -> None:
        self._held = ""

    def push(self, text: str) -> list[str | ToolCall]:
        """What is decided after `text`: pieces of text (never empty) and calls, in order."""
        self._held += text
        return _join(self._take())

    def flush(self) -> str:
        """What is held back at the end of the stream, as text."""
        held, self._held = self._held, ""
        return held

    def _take(self) -> Iterator[str | ToolCall]:
        while True:
            opening = self._held.find(OPENING)
            if opening < 0:
                keep = _length_of_beginning(self._held)
                yield self._held[: len(self._held) - keep]
                self._held = self._held[len(self._held) - keep :]
                return
            start = opening - 1 if self._held[:opening].endswith("\n") else opening
            yield self._held[:start]
            self._held = self._held[start:]
            closing = self._held.find(CLOSING)
            if closing < 0:
                return
            block = self._held[: closing + len(CLOSING)]
            yield from _parse_block(block)
            self._held = self._held[len(block) :]


def _parse_block(block: str) -> Iterator[str | ToolCall]:
    """A block from an opening mark to a closing one; when it fails as a whole, its innermost opening is tried."""
    call = parse_tool_call(block)
    if call is not None:
        yield call
        return
    innermost = block.rfind(OPENING)
    innermost -= block[:innermost].endswith("\n")
    call = parse_tool_call(block[innermost:])
    if call is None:
        yield block
    else:
        yield block[:innermost]
        yield call


def _length_of_beginning(text: str) -> int:
    """Length of the longest end of `text` that begins an opening mark, with or without its line end."""
    for mark in ("\n" + OPENING, OPENING):
        for length in range(min(len(text), len(mark) - 1), 0, -1):
            if text.endswith(mark[:length]):
                return length
    return 0


def _join(pieces: Iterator[str | ToolCall]) -> list[str | ToolCall]:
    joined: list[str | ToolCall] = []
    for piece in pieces:
        if isinstance(piece, str) and joined and isinstance(joined[-1], str):
            joined[-1] += piece
        elif piece:
            joined.append(piece)
    return joined


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
