"""An answer's events as Bedrock's stream events, and these as frames."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection
from typing import Any

import msgspec

from kilonova.core.errors import EngineError
from kilonova.core.types import Finished, GenerationEvent, TextDelta, ToolInputDelta, ToolUse, ToolUseStart
from kilonova.serve.bedrock.errors import error_frame, to_bedrock_error
from kilonova.serve.call import Call

IndexedEvent = tuple[int, GenerationEvent]
NamedEvent = tuple[str, dict[str, Any]]


async def frames(
    call: Call,
    events: AsyncIterator[NamedEvent],
    write: Callable[[str, dict[str, Any]], bytes],
    exceptions: Collection[str],
) -> AsyncGenerator[bytes, None]:
    """The frames of a whole stream; a fault on the way becomes one of the `exceptions` that the stream may hold."""
    try:
        async for name, event in events:
            yield write(name, event)
    except Exception as error:
        answered = to_bedrock_error(error)
        call.error = answered.code
        yield error_frame(answered, exceptions)


async def stream_events(
    first: IndexedEvent,
    events: AsyncGenerator[IndexedEvent, None],
    finish: Callable[[Finished], list[NamedEvent]],
) -> AsyncIterator[NamedEvent]:
    """Bedrock's stream events, in their order: each text run and each tool call is a content block of its own."""
    yield "messageStart", {"role": "assistant"}
    blocks = _Blocks()
    _, event = first
    while not isinstance(event, Finished):
        for named in blocks.take(event):
            yield named
        following = await anext(events, None)
        if following is None:
            raise EngineError("the generation ended before its last event")
        _, event = following
    for named in (*blocks.end(), *finish(event)):
        yield named


class _Blocks:
    """Content blocks as they open, grow and close."""

    def __init__(self) -> None:
        self._index = 0
        self._open = ""

    def take(self, event: GenerationEvent) -> list[NamedEvent]:
        """What follows from an event that is not the last."""
        if isinstance(event, TextDelta):
            return self._delta("text", event.text) if event.text else []
        if isinstance(event, ToolUseStart):
            start = {"toolUse": {"toolUseId": event.id, "name": event.name}}
            events = self._close()
            self._open = "toolUse"
            return [*events, ("contentBlockStart", {"start": start, "contentBlockIndex": self._index})]
        if isinstance(event, ToolInputDelta):
            return self._delta("toolUse", {"input": event.text})
        if isinstance(event, ToolUse):
            return self._close()
        return []

    def end(self) -> list[NamedEvent]:
        """The close of what is open; a silent answer is one empty text block."""
        silent = not self._open and not self._index
        return [*(self._delta("text", "") if silent else ()), *self._close()]

    def _delta(self, kind: str, value: Any) -> list[NamedEvent]:
        events = self._close() if self._open not in ("", kind) else []
        self._open = kind
        return [*events, ("contentBlockDelta", {"delta": {kind: value}, "contentBlockIndex": self._index})]

    def _close(self) -> list[NamedEvent]:
        if not self._open:
            return []
        stop = ("contentBlockStop", {"contentBlockIndex": self._index})
        self._open = ""
        self._index += 1
        return [stop]


def encode(event: Any) -> bytes:
    """An event's payload."""
    return msgspec.json.encode(event)
