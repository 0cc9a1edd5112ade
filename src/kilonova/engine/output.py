"""From sampled tokens to events: text of whole characters, tool calls, stop sequences and log-probabilities."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable

from kilonova.core.types import (
    GenerationEvent,
    TextDelta,
    TokenLogprob,
    ToolInputDelta,
    ToolUse,
    ToolUseBlock,
    ToolUseStart,
)
from kilonova.engine.sampling import RawLogprob
from kilonova.engine.stops import StopMatcher
from kilonova.text.tokenizer import IncrementalDetokenizer, Tokenizer
from kilonova.text.tool_calls import CallInput, CallStart, Piece, ToolCall, ToolCallReader


class OutputStream:
    """The output side of one request; with `has_tools`, calls in its text must be well-formed.

    Stop sequences are looked for in plain text, not inside tool calls. A token's log-probability comes with the text
    delta that holds its first character; tokens of a tool call or of a stop sequence have none. That of the model's own
    end, which has no text, comes last where `tells_end` asks for it.
    """

    def __init__(
        self, tokenizer: Tokenizer, stop: tuple[str, ...], has_tools: bool, *, tells_end: bool = False
    ) -> None:
        self._tokenizer = tokenizer
        self._tells_end = tells_end
        self._detokenizer = IncrementalDetokenizer(tokenizer)
        self._calls = ToolCallReader() if has_tools else None
        self._call_id = ""
        self._stops = StopMatcher(stop)
        self._logprobs: deque[tuple[int, TokenLogprob]] = deque()
        self._decoded = 0
        self._emitted = 0
        self.stop_sequence: str | None = None
        self.num_tool_calls = 0

    def push(self, token_id: int, raw: RawLogprob | None) -> list[GenerationEvent]:
        """Events of one more token; `stop_sequence` is set when it completed one."""
        if raw is not None:
            self._logprobs.append((self._decoded, to_token_logprob(raw, self._tokenizer.token_text)))
        return self._push_text(self._detokenizer.push(token_id))

    def end(self, raw: RawLogprob | None) -> None:
        """Take in the token with which the model ended its answer; `flush` follows."""
        if raw is not None and self._tells_end:
            self._logprobs.append((self._decoded, to_token_logprob(raw, self._tokenizer.token_text)))

    def flush(self) -> list[GenerationEvent]:
        """What was held back when the generation ends for another reason than a stop sequence.

        Nothing more comes of a call that was cut off.
        """
        events = self._push_text(self._detokenizer.flush())
        if self.stop_sequence is not None:
            return events
        text = ""
        if self._calls is not None:
            text = self._calls.flush()
            if self._calls.in_call:
                self._logprobs.clear()
        emit, self.stop_sequence = self._stops.push(text)
        if self.stop_sequence is None:
            emit += self._stops.flush()
        return events + self._emit(emit, is_last=self.stop_sequence is None)

    def _push_text(self, text: str) -> list[GenerationEvent]:
        self._decoded += len(text)
        pieces: list[Piece] = [text] if self._calls is None else self._calls.push(text)
        events: list[GenerationEvent] = []
        for piece in pieces:
            if not isinstance(piece, str):
                events += self._call_events(piece)
                continue
            emit, self.stop_sequence = self._stops.push(piece)
            events += self._emit(emit, is_last=False)
            if self.stop_sequence is not None:
                break
        return events

    def _emit(self, text: str, is_last: bool) -> list[GenerationEvent]:
        self._emitted += len(text)
        logprobs: list[TokenLogprob] = []
        while self._logprobs and (is_last or self._logprobs[0][0] < self._emitted):
            logprobs.append(self._logprobs.popleft()[1])
        return [TextDelta(text, tuple(logprobs))] if text or logprobs else []

    def _call_events(self, piece: CallStart | CallInput | ToolCall) -> list[GenerationEvent]:
        if isinstance(piece, CallInput):
            return [ToolInputDelta(piece.text)]
        if isinstance(piece, CallStart):
            self._call_id = f"tooluse_{secrets.token_urlsafe(17)[:22]}"
            return [*self._emit(self._stops.flush(), is_last=False), ToolUseStart(self._call_id, piece.name)]
        self.num_tool_calls += 1
        self._emitted += piece.length
        while self._logprobs and self._logprobs[0][0] < self._emitted:
            self._logprobs.popleft()
        return [ToolUse(ToolUseBlock(self._call_id, piece.name, piece.arguments))]


def to_token_logprob(raw: RawLogprob, token_text: Callable[[int], str]) -> TokenLogprob:
    """The event's form of a token's log-probability."""
    top = tuple(
        TokenLogprob(token_id, token_text(token_id), logprob)
        for token_id, logprob in zip(raw.top_ids, raw.top_logprobs, strict=True)
    )
    return TokenLogprob(raw.token_id, token_text(raw.token_id), raw.logprob, top)
