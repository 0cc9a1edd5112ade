"""POST /v1/chat/completions."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from kilonova.core.types import (
    Finished,
    GenerationEvent,
    GenerationRequest,
    PromptProcessed,
    TextDelta,
    TokenLogprob,
    ToolInputDelta,
    ToolUse,
    ToolUseStart,
    Usage,
)
from kilonova.serve.call import Call
from kilonova.serve.context import context_fields
from kilonova.serve.gateway import Gateway
from kilonova.serve.generation import Answer, StreamedResponse, begin, collect, until_disconnect
from kilonova.serve.http import read_body
from kilonova.serve.openai.errors import decode, fields_named
from kilonova.serve.openai.formats import grammar_field, to_grammar
from kilonova.serve.openai.messages import to_conversation
from kilonova.serve.openai.requests import ChatRequest, check_chat
from kilonova.serve.openai.sampling import to_sampling, to_service_tier
from kilonova.serve.openai.tools import choose, to_tools
from kilonova.serve.openai.wire import (
    FINISH_REASONS,
    SSE_DONE,
    SSE_HEADERS,
    SSE_MEDIA_TYPE,
    from_logprobs,
    from_prompt_logprobs,
    from_tool_use,
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
        entry = self.gateway.resolve_text(call, body.model)
        call.metadata = body.metadata or {}
        call.service_tier = to_service_tier(body)
        generation_request = to_request(body, entry)
        n = body.n or 1
        with fields_named(_fields(body)):
            generations = await self.gateway.submit(
                call,
                entry,
                with_choice_seeds(generation_request, n),
                shorten=getattr(body, body.max_tokens_field) is None,
            )
        head = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": body.model,
            "service_tier": call.service_tier,
            "system_fingerprint": None,
        }
        if body.stream:
            first, events = await begin(request.receive, generations)
            chunks = _Stream(call, head, body, n).write(first, events)
            return StreamedResponse(chunks, [events], media_type=SSE_MEDIA_TYPE, headers=SSE_HEADERS)
        answers = await until_disconnect(request.receive, collect(generations))
        response = {
            **head,
            "object": "chat.completion",
            "choices": [_to_choice(index, answer, body) for index, answer in enumerate(answers)],
            "usage": to_usage({index: answer.finished.usage for index, answer in enumerate(answers)}, n),
            **context_fields(call),
        }
        return Response(msgspec.json.encode(response), media_type="application/json")


def to_request(body: ChatRequest, entry: ModelEntry) -> GenerationRequest:
    """What a chat request asks of the model. Raises InvalidRequest for what it cannot do."""
    check_chat(body)
    all_tools = to_tools(body.tools or ())
    tools, tool_choice = choose(all_tools, body.tool_choice)
    field = body.max_tokens_field
    return GenerationRequest(
        model=entry.name,
        adapter=entry.adapter,
        messages=to_conversation(body.messages, all_tools, entry),
        tools=tools,
        tool_choice=tool_choice,
        parallel_tool_calls=body.parallel_tool_calls is not False,
        grammar=to_grammar(body, body.response_format),
        context=body.context,
        sampling=to_sampling(
            body,
            entry,
            max_tokens=getattr(body, field),
            max_tokens_field=field,
            logprobs=(body.top_logprobs or 0) if body.logprobs else None,
            prompt_logprobs=body.prompt_logprobs,
        ),
    )


def _fields(body: ChatRequest) -> dict[str, str]:
    return {
        "prompt": "messages",
        "max_tokens": body.max_tokens_field,
        "grammar": "response_format" if body.response_format is not None else grammar_field(body),
        r"(tools\.\d+)\.(\w+)": r"\1.function.\2",
    }


def _to_choice(index: int, answer: Answer, body: ChatRequest) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": answer.text, "refusal": None, "annotations": []}
    if answer.tool_uses:
        message["content"] = answer.text or None
        message["tool_calls"] = [from_tool_use(block) for block in answer.tool_uses]
    choice = {
        "index": index,
        "message": message,
        "logprobs": _to_logprobs(answer.logprobs) if body.logprobs else None,
        "finish_reason": FINISH_REASONS[answer.finished.stop_reason],
    }
    if body.prompt_logprobs is not None:
        choice["prompt_logprobs"] = from_prompt_logprobs(answer.prompt.logprobs)
    return choice


def _to_logprobs(tokens: list[TokenLogprob] | tuple[TokenLogprob, ...]) -> dict[str, Any]:
    return {"content": from_logprobs(tokens), "refusal": None}


class _Stream:
    """The chunks of one answer of `n` choices."""

    def __init__(self, call: Call, head: dict[str, Any], body: ChatRequest, n: int) -> None:
        self._call = call
        self._head = {**head, "object": "chat.completion.chunk"}
        self._n = n
        self._include_usage = body.include_usage
        self._continuous_usage = body.continuous_usage
        self._usages: dict[int, Usage] = {}
        # Of each choice: the calls so far, and those whose start has been sent.
        self._num_calls = [0] * n
        self._started: set[str] = set()

    async def write(
        self, first: tuple[int, GenerationEvent], events: AsyncGenerator[tuple[int, GenerationEvent], None]
    ) -> AsyncGenerator[bytes, None]:
        """The server-sent events, up to the last."""
        try:
            following: tuple[int, GenerationEvent] | None = first
            while following is not None:
                chunk = self._chunk(*following)
                if chunk is not None:
                    yield chunk
                following = await anext(events, None)
            if self._include_usage:
                yield sse({**self._head, "choices": [], "usage": to_usage(self._usages, self._n)})
        except Exception as error:
            yield sse_error(self._call, error)
        yield SSE_DONE

    def _chunk(self, index: int, event: GenerationEvent) -> bytes | None:
        if isinstance(event, PromptProcessed):
            return self._sse(index, {"role": "assistant", "content": "", "refusal": None})
        if isinstance(event, TextDelta):
            if not event.text and not event.logprobs:
                return None
            return self._sse(
                index,
                {"content": event.text},
                logprobs=_to_logprobs(event.logprobs) if event.logprobs else None,
            )
        if isinstance(event, Finished):
            self._usages[index] = event.usage
            return self._sse(index, {}, finish_reason=FINISH_REASONS[event.stop_reason])
        call = self._tool_call(index, event)
        return None if call is None else self._sse(index, {"tool_calls": [call]})

    def _tool_call(self, index: int, event: ToolUseStart | ToolInputDelta | ToolUse) -> dict[str, Any] | None:
        if isinstance(event, ToolInputDelta):
            return {"index": self._num_calls[index] - 1, "function": {"arguments": event.text}}
        if isinstance(event, ToolUse) and event.block.id in self._started:
            return None
        self._num_calls[index] += 1
        number = self._num_calls[index] - 1
        if isinstance(event, ToolUse):
            return {"index": number, **from_tool_use(event.block)}
        self._started.add(event.id)
        return {
            "index": number,
            "id": event.id,
            "type": "function",
            "function": {"name": event.name, "arguments": ""},
        }

    def _sse(
        self, index: int, delta: dict[str, Any], *, finish_reason: str | None = None, logprobs: Any = None
    ) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        usage = {"usage": self._usage_so_far()} if self._include_usage else {}
        return sse({**self._head, "choices": [choice], **usage})

    def _usage_so_far(self) -> dict[str, Any] | None:
        if not self._continuous_usage:
            return None
        return to_usage({index: each.progress().usage for index, each in enumerate(self._call.generations)}, self._n)
