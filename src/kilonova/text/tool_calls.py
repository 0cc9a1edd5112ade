"""Tool calls in generated text: `<tool_call>` line, a JSON object with `name` and `arguments`, `</tool_call>` line.

The JSON is written in one way only, that of chat templates, which the grammar of a request with tools holds the model
to: `{"name": "...", "arguments": {...}}`, with one space after each comma and colon and no other white space.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

OPENING = "<tool_call>"
CLOSING = "</tool_call>"

_HEADER = re.compile(r'\n\{"name": ("(?:[^"\\]|\\.)*"), "arguments": ')
# JSON on one line holds no line end, so that nothing inside the arguments looks like this.
_FOOTER = "}\n" + CLOSING


@dataclass(frozen=True, slots=True)
class CallStart:
    """A call of `name` begins."""

    name: str


@dataclass(frozen=True, slots=True)
class CallInput:
    """A piece of the JSON text of the call's arguments."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A complete call; `length` is that of the text it was read from, marks and the line end before them included."""

    name: str
    arguments: dict[str, Any]
    length: int


Piece = str | CallStart | CallInput | ToolCall


def call_header(name: str) -> str:
    """What stands between the opening mark and the arguments of a call."""
    return f'\n{{"name": {json.dumps(name, ensure_ascii=False)}, "arguments": '


class ToolCallReader:
    """Splits a stream of text, whose calls are well-formed, into plain text and calls.

    The line end before a call belongs to the call, as chat templates put it there. Text is held back only while it may
    still begin a call, and arguments only while they may already be their end.
    """

    def __init__(self) -> None:
        self._held = ""
        self._name: str | None = None
        self._arguments: list[str] = []
        self._length = 0
        self.in_call = False

    def push(self, text: str) -> list[Piece]:
        """What is decided after `text`, in order; no text among it is empty."""
        self._held += text
        return list(self._take())

    def flush(self) -> str:
        """What is held back at the end of the stream, as text; a call that was cut off is not."""
        held, self._held = self._held, ""
        return "" if self.in_call else held

    def _take(self) -> Iterator[Piece]:
        while True:
            if not self.in_call:
                opening = self._held.find(OPENING)
                if opening < 0:
                    yield from self._pass_on(max(map(self._overlap, ("\n" + OPENING, OPENING))))
                    return
                start = opening - 1 if self._held[:opening].endswith("\n") else opening
                if start:
                    yield self._held[:start]
                self._drop(opening + len(OPENING))
                self._length = opening + len(OPENING) - start
                self.in_call = True
            if self._name is None:
                header = _HEADER.match(self._held)
                if header is None:
                    return
                self._name = json.loads(header[1])
                self._advance(header.end())
                yield CallStart(self._name)
            footer = self._held.find(_FOOTER)
            yield from self._input(footer if footer >= 0 else len(self._held) - self._overlap(_FOOTER))
            if footer < 0:
                return
            self._advance(len(_FOOTER))
            yield ToolCall(self._name, _parse("".join(self._arguments)), self._length)
            self._name, self._arguments, self.in_call = None, [], False

    def _pass_on(self, keep: int) -> Iterator[str]:
        text = self._held[: len(self._held) - keep]
        self._drop(len(text))
        if text:
            yield text

    def _input(self, length: int) -> Iterator[CallInput]:
        if length:
            self._arguments.append(self._held[:length])
            self._advance(length)
            yield CallInput(self._arguments[-1])

    def _advance(self, length: int) -> None:
        self._drop(length)
        self._length += length

    def _drop(self, length: int) -> None:
        self._held = self._held[length:]

    def _overlap(self, mark: str) -> int:
        """Length of the longest end of what is held that begins `mark`."""
        for length in range(min(len(self._held), len(mark) - 1), 0, -1):
            if self._held.endswith(mark[:length]):
                return length
        return 0


def _parse(text: str) -> dict[str, Any]:
    """The arguments; numbers beyond the range of a double become the largest one, so that JSON can be written again."""
    return json.loads(text, parse_float=_parse_float, parse_int=_parse_int)


def _parse_float(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else math.copysign(sys.float_info.max, number)


def _parse_int(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:  # More digits than Python converts.
        return _parse_float(text)
