"""A response as it comes to be: the events of its stream, and the object they add up to."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from kilonova.core.types import (
    Finished,
    GenerationEvent,
    PromptProcessed,
    TextDelta,
    ToolInputDelta,
    ToolUse,
    ToolUseStart,
    Usage,
)
from kilonova.serve.openai.errors import OpenAIError
from kilonova.serve.openai.response_items import item_id
from kilonova.serve.openai.wire import from_logprobs

Event = dict[str, Any]


class ResponseBuilder:
    """Follows one generation: every event of it becomes events of the API, and fills in `response`.

    `response` is the object as it begins; `num_inputs` items of its conversation are the request's own, and
    `with_logprobs` says that the texts come with log-probabilities.
    """

    def __init__(self, response: dict[str, Any], num_inputs: int, *, with_logprobs: bool) -> None:
        self.response = response
        self._num_inputs = num_inputs
        self._with_logprobs = with_logprobs
        self._output: list[dict[str, Any]] = response["output"]
        self._sequence_number = 0
        self._is_open = False

    def begin(self) -> Iterator[Event]:
        """The events before the first of the generation."""
        yield self._event("response.created", response=self.response)
        yield self._event("response.in_progress", response=self.response)

    def push(self, event: GenerationEvent) -> Iterator[Event]:
        """The events that follow from one of the generation."""
        if isinstance(event, PromptProcessed):
            return
        if isinstance(event, TextDelta):
            if event.text or event.logprobs:
                yield from self._text(event)
        elif isinstance(event, ToolUseStart):
            yield from self._start_call(event.id, event.name)
        elif isinstance(event, ToolInputDelta):
            yield from self._arguments(event.text)
        elif isinstance(event, ToolUse):
            call = event.block
            if not self._is_open or self._item.get("call_id") != call.id:
                yield from self._start_call(call.id, call.name)
            if not self._item["arguments"]:
                yield from self._arguments(msgspec.json.encode(call.input).decode())
            yield from self._close("completed")
        else:
            yield from self._finish(event)

    def fail(self, error: OpenAIError) -> Iterator[Event]:
        """The last event of a response that could not be finished."""
        code = "rate_limit_exceeded" if error.status == 429 else "server_error"
        self.response["status"] = "failed"
        self.response["error"] = {"code": code, "message": str(error)}
        yield self._event("response.failed", response=self.response)

    @property
    def _item(self) -> dict[str, Any]:
        return self._output[-1]

    def _event(self, type: str, **members: Any) -> Event:
        event = {"type": type, "sequence_number": self._sequence_number, **members}
        self._sequence_number += 1
        return event

    def _item_event(self, type: str, **members: Any) -> Event:
        return self._event(type, item_id=self._item["id"], output_index=len(self._output) - 1, **members)

    def _add(self, kind: str, **members: Any) -> Iterator[Event]:
        yield from self._close("completed")
        identifier = item_id(kind, self.response["id"], self._num_inputs + len(self._output))
        self._output.append({"id": identifier, "type": kind, "status": "in_progress", **members})
        self._is_open = True
        yield self._event("response.output_item.added", output_index=len(self._output) - 1, item=self._item)

    def _text(self, event: TextDelta) -> Iterator[Event]:
        if not self._is_open or self._item["type"] != "message":
            yield from self._start_message()
        part = self._item["content"][0]
        logprobs = from_logprobs(event.logprobs)
        part["text"] += event.text
        if self._with_logprobs:
            part["logprobs"] += logprobs
        yield self._item_event("response.output_text.delta", content_index=0, delta=event.text, logprobs=logprobs)

    def _start_message(self) -> Iterator[Event]:
        yield from self._add("message", role="assistant", content=[])
        part: dict[str, Any] = {"type": "output_text", "text": "", "annotations": []}
        if self._with_logprobs:
            part["logprobs"] = []
        self._item["content"].append(part)
        yield self._item_event("response.content_part.added", content_index=0, part=part)

    def _start_call(self, call_id: str, name: str) -> Iterator[Event]:
        yield from self._add("function_call", call_id=call_id, name=name, arguments="")

    def _arguments(self, text: str) -> Iterator[Event]:
        self._item["arguments"] += text
        yield self._item_event("response.function_call_arguments.delta", delta=text)

    def _close(self, status: str) -> Iterator[Event]:
        if not self._is_open:
            return
        self._is_open = False
        item = self._item
        item["status"] = status
        if item["type"] == "message":
            part = item["content"][0]
            yield self._item_event(
                "response.output_text.done", content_index=0, text=part["text"], logprobs=part.get("logprobs", [])
            )
            yield self._item_event("response.content_part.done", content_index=0, part=part)
        else:
            yield self._item_event(
                "response.function_call_arguments.done", name=item["name"], arguments=item["arguments"]
            )
        yield self._event("response.output_item.done", output_index=len(self._output) - 1, item=item)

    def _finish(self, event: Finished) -> Iterator[Event]:
        if not self._output:
            yield from self._start_message()
        cut = event.stop_reason in ("max_tokens", "model_context_window_exceeded")
        yield from self._close("incomplete" if cut else "completed")
        yield self._end(
            {
                "status": "incomplete" if cut else "completed",
                "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
                "completed_at": None if cut else int(time.time()),
                "usage": _to_usage(event.usage),
            }
        )

    def _end(self, changes: Mapping[str, Any]) -> Event:
        self.response.update(changes)
        return self._event(f"response.{self.response['status']}", response=self.response)

    def replay(self, stored: Mapping[str, Any]) -> Iterator[Event]:
        """The events of a response that is over, its texts and arguments in one piece each."""
        yield from self.begin()
        for item in stored["output"]:
            yield from self._replay_item(item)
        yield self._end(stored)

    def _replay_item(self, item: Mapping[str, Any]) -> Iterator[Event]:
        if item["type"] == "message":
            yield from self._text(TextDelta(item["content"][0]["text"]))
        else:
            yield from self._start_call(item["call_id"], item["name"])
            yield from self._arguments(item["arguments"])
        yield from self._close(item["status"])


def _to_usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cache_read_input_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.total_tokens,
    }
