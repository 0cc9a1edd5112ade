"""From sampled tokens to events: text of whole characters, tool calls, stop sequences and log-probabilities."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable

from kilonova.core.types import GenerationEvent, TextDelta, TokenLogprob, ToolUse, ToolUseBlock
from kilonova.engine.sampling import RawLogprob
from kilonova.engine.stops import StopMatcher
from kilonova.text.tokenizer import IncrementalDetokenizer, Tokenizer
from kilonova.text.tool_calls import ToolCall, ToolCallSplitter


class OutputStream:
    """The output side of one request.

    Stop sequences are looked for in plain text, not inside tool calls. A token's log-probability comes with the text
    delta that holds its first character; tokens of a tool call or of a stop sequence have none.
    """

    def __init__(self, tokenizer: Tokenizer, stop: tuple[str, ...], has_tools: bool) -> None:
        self._tokenizer = tokenizer
        self._detokenizer = IncrementalDetokenizer(tokenizer)
        self._splitter = ToolCallSplitter() if has_tools else None
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

    def flush(self) -> list[GenerationEvent]:
        """What was held back when the generation ends for another reason than a stop sequence."""
        events = self._push_text(self._detokenizer.flush())
        if self.stop_sequence is not None:
            return events
        text = self._splitter.flush() if self._splitter is not None else ""
        emit, self.stop_sequence = self._stops.push(text)
        if self.stop_sequence is None:
            emit += self._stops.flush()
        return events + self._emit(emit, is_last=self.stop_sequence is None)

    def _push_text(self, text: str) -> list[GenerationEvent]:
        self._decoded += len(text)
        pieces: list[str | ToolCall] = [text] if self._splitter is None else self._splitter.push(text)
        events: list[GenerationEvent] = []
        for piece in pieces:
            if isinstance(piece, ToolCall):
                events += self._emit(self._stops.flush(), is_last=False)
                events.append(self._tool_use(piece))
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

    def _tool_use(self, call: ToolCall) -> ToolUse:
        self.num_tool_calls += 1
        self._emitted += len(call.text)
        while self._logprobs and self._logprobs[0][0] < self._emitted:
            self._logprobs.popleft()
        return ToolUse(ToolUseBlock(f"tooluse_{secrets.token_urlsafe(17)[:22]}", call.name, call.arguments))


def to_token_logprob(raw: RawLogprob, token_text: Callable[[int], str]) -> TokenLogprob:
    """The event's form of a token's log-probability."""
    top = tuple(
        TokenLogprob(token_id, token_text(token_id), logprob)
        for token_id, logprob in zip(raw.top_ids, raw.top_logprobs, strict=True)
    )
    return TokenLogprob(raw.token_id, token_text(raw.token_id), raw.logprob, top)
