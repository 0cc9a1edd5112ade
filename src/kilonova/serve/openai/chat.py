"""POST /v1/chat/completions."""

from __future__ import annotations

import dataclasses
import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from kilonova.core.errors import InvalidRequest
from kilonova.core.types import (
    Finished,
    GenerationEvent,
    GenerationRequest,
    PromptProcessed,
    TextDelta,
    TokenLogprob,
    ToolUse,
)
from kilonova.serve.call import Call
from kilonova.serve.gateway import Gateway
from kilonova.serve.generation import Answer, StreamedResponse, begin, collect, until_disconnect
from kilonova.serve.http import read_body
from kilonova.serve.openai.errors import decode
from kilonova.serve.openai.messages import from_tool_use, to_conversation
from kilonova.serve.openai.requests import ChatRequest, check_supported, to_sampling
from kilonova.serve.openai.wire import (
    FINISH_REASONS,
    SSE_DONE,
    SSE_HEADERS,
    SSE_MEDIA_TYPE,
    finite,
    sse,
    sse_error,
    to_usage,
    with_choice_seeds,
)

if TYPE_CHECKING:
    from kilonova.models.registry import ModelEntry

_decoder = msgspec.json.Decoder(ChatRequest)


class ChatCompletions:
    """The endpoint over the models of one server."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    async def create(self, request: Request, call: Call) -> Response:
        """Answers one request, streamed or whole."""
        body: ChatRequest = decode(_decoder, await read_body(request))
        entry = self.gateway.resolve(call, body.model)
        generation_request = _to_request(body, entry)
        generations = await self.gateway.submit(
            call,
            entry,
            with_choice_seeds(generation_request, body.n or 1),
            shorten=body.max_tokens is None and body.max_completion_tokens is None,
        )
        head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": body.model}
        if body.stream:
            first, events = await begin(request.receive, generations)
            include_usage = bool(body.stream_options and body.stream_options.include_usage)
            chunks = _stream(head, first, events, choices=len(generations), include_usage=include_usage)
            return StreamedResponse(chunks, [events], media_type=SSE_MEDIA_TYPE, headers=SSE_HEADERS)
        answers = await until_disconnect(request.receive, collect(generations))
        response = {
            **head,
            "object": "chat.completion",
            "choices": [_to_choice(index, answer, bool(body.logprobs)) for index, answer in enumerate(answers)],
            "usage": to_usage(answers[0].finished.usage.input_tokens, [answer.finished for answer in answers]),
        }
        return Response(msgspec.json.encode(response), media_type="application/json")


def _to_request(body: ChatRequest, entry: ModelEntry) -> GenerationRequest:
    check_supported(body)
    if body.top_logprobs is not None and not body.logprobs:
        raise InvalidRequest("'top_logprobs' is only allowed when 'logprobs' is true.", field="top_logprobs")
    messages, tools = to_conversation(body, entry)
    field = "max_tokens" if body.max_completion_tokens is None else "max_completion_tokens"
    sampling = to_sampling(
        body,
        entry,
        max_tokens=getattr(body, field),
        max_tokens_field=field,
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
    )
    return GenerationRequest(model=entry.name, adapter=entry.adapter, messages=messages, tools=tools, sampling=sampling)


def _to_choice(index: int, answer: Answer, logprobs: bool) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": answer.text, "refusal": None}
    if answer.tool_uses:
        message["content"] = answer.text or None
        message["tool_calls"] = [from_tool_use(block) for block in answer.tool_uses]
    return {
        "index": index,
        "message": message,
        "logprobs": _to_logprobs(answer.logprobs) if logprobs else None,
        "finish_reason": FINISH_REASONS[answer.finished.stop_reason],
    }


def _to_logprobs(tokens: Sequence[TokenLogprob]) -> dict[str, Any]:
    return {
        "content": [
            {**_to_token(token), "top_logprobs": [_to_token(alternative) for alternative in token.top]}
            for token in tokens
        ],
        "refusal": None,
    }


def _to_token(token: TokenLogprob) -> dict[str, Any]:
    # A token that ends inside a character has no text of its own, hence no bytes to give.
    known = "\ufffd" not in token.text
    return {
        "token": token.text,
        "logprob": finite(token.logprob),
        "bytes": list(token.text.encode()) if known else None,
    }


@dataclasses.dataclass(slots=True)
class _ChoiceState:
    tool_calls: int = 0
    finished: Finished | None = None


async def _stream(
    head: dict[str, Any],
    first: tuple[int, GenerationEvent],
    events: AsyncGenerator[tuple[int, GenerationEvent], None],
    *,
    choices: int,
    include_usage: bool,
) -> AsyncGenerator[bytes, None]:
    head = {**head, "object": "chat.completion.chunk"}
    usage = {"usage": None} if include_usage else {}
    states = [_ChoiceState() for _ in range(choices)]

    def chunk(index: int, delta: dict[str, Any], finish_reason: str | None = None, logprobs: Any = None) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        return sse({**head, "choices": [choice], **usage})

    input_tokens = 0
    try:
        following: tuple[int, GenerationEvent] | None = first
        while following is not None:
            index, event = following
            state = states[index]
            if isinstance(event, PromptProcessed):
                input_tokens = event.input_tokens
                yield chunk(index, {"role": "assistant", "content": "", "refusal": None})
            elif isinstance(event, TextDelta):
                if event.text or event.logprobs:
                    logprobs = _to_logprobs(event.logprobs) if event.logprobs else None
                    yield chunk(index, {"content": event.text}, logprobs=logprobs)
            elif isinstance(event, ToolUse):
                yield chunk(index, {"tool_calls": [{"index": state.tool_calls, **from_tool_use(event.block)}]})
                state.tool_calls += 1
            else:
                state.finished = event
                yield chunk(index, {}, FINISH_REASONS[event.stop_reason])
            following = await anext(events, None)
        if include_usage:
            finished = [state.finished for state in states if state.finished is not None]
            yield sse({**head, "choices": [], "usage": to_usage(input_tokens, finished)})
    except Exception as error:
        yield sse_error(error)
    yield SSE_DONE
