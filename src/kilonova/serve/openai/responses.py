"""The responses API: /v1/responses and what is kept under it."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from kilonova.core.errors import InvalidRequest
from kilonova.core.types import GenerationEvent, GenerationRequest
from kilonova.serve.call import Call
from kilonova.serve.context import context_fields
from kilonova.serve.gateway import Gateway
from kilonova.serve.generation import StreamedResponse, begin, follow, until_disconnect
from kilonova.serve.http import read_body
from kilonova.serve.openai.errors import OpenAIError, decode, fields_named, to_openai_error
from kilonova.serve.openai.formats import from_text_format, to_grammar
from kilonova.serve.openai.response_events import Event, ResponseBuilder
from kilonova.serve.openai.response_items import input_items, response_of_item, to_conversation
from kilonova.serve.openai.response_requests import (
    InputTokensRequest,
    Item,
    ResponseRequest,
    check_response,
    to_context,
)
from kilonova.serve.openai.sampling import to_sampling, to_service_tier
from kilonova.serve.openai.store import ResponseStore, StoredResponse
from kilonova.serve.openai.tools import choose, to_tools
from kilonova.serve.openai.wire import SSE_HEADERS, SSE_MEDIA_TYPE, sse

if TYPE_CHECKING:
    from kilonova.engine.generation import Generation
    from kilonova.models.registry import ModelEntry

DEFAULT_LISTED = 20
MAX_LISTED = 100

_FIELDS = {"prompt": "input", "messages.*": "input", "max_tokens": "max_output_tokens", "grammar": "text.format"}

_decoder = msgspec.json.Decoder(ResponseRequest)
_count_decoder = msgspec.json.Decoder(InputTokensRequest)


class Responses:
    """The endpoints over the models of one server. Without a `store` nothing is kept, and asking for it is refused."""

    def __init__(self, gateway: Gateway, store: ResponseStore | None) -> None:
        self.gateway = gateway
        self.store = store

    async def create(self, request: Request, call: Call) -> Response:
        """Answers one request, streamed or whole."""
        body: ResponseRequest = decode(_decoder, await read_body(request))
        entry = self.gateway.resolve_text(call, body.model)
        call.metadata = body.metadata or {}
        call.service_tier = to_service_tier(body)
        if body.store and self.store is None:
            raise InvalidRequest("This server keeps no responses: 'store' must be false.", field="store")
        response_id = f"resp_{uuid.uuid4().hex}"
        own, generation_request = await self._to_request(call, body, entry, response_id)
        with fields_named(_FIELDS):
            generations = await self.gateway.submit(
                call, entry, [generation_request], shorten=body.max_output_tokens is None
            )
        is_kept = self.store is not None and body.store is not False
        response = _to_object(response_id, body, generation_request, call, is_kept=is_kept)
        run = _Run(
            call,
            ResponseBuilder(response, len(own), with_logprobs=body.logprobs is not None),
            self.store if is_kept else None,
            own,
        )
        if body.stream:
            first, events = await begin(request.receive, generations)
            return StreamedResponse(run.stream(first, events), [events], media_type=SSE_MEDIA_TYPE, headers=SSE_HEADERS)
        await until_disconnect(request.receive, run.collect(generations))
        return _json(response)

    async def count(self, request: Request, call: Call) -> Response:
        """The input tokens that a request would be billed for."""
        body: InputTokensRequest = decode(_count_decoder, await read_body(request))
        entry = self.gateway.resolve_text(call, body.model)
        _, generation_request = await self._to_request(call, body, entry, f"resp_{uuid.uuid4().hex}")
        with fields_named(_FIELDS):
            tokens = await self.gateway.count_tokens(call, entry, generation_request)
        return _json({"object": "response.input_tokens", "input_tokens": tokens})

    async def retrieve(self, request: Request, call: Call) -> Response:
        """A response that is kept, as it is or as the stream of its events."""
        stored = await self._get(request, call)
        if request.query_params.get("stream") != "true":
            return _json(stored.body)
        after = _integer(request, "starting_after", -1, -1, 2**31)
        begun = {**stored.body, "status": "in_progress", "output": [], "usage": None, "completed_at": None}
        builder = ResponseBuilder(
            {**begun, "error": None, "incomplete_details": None}, len(stored.input), with_logprobs=False
        )
        events = [
            sse(event, event["type"]) for event in builder.replay(stored.body) if event["sequence_number"] > after
        ]
        return Response(b"".join(events), media_type=SSE_MEDIA_TYPE, headers=SSE_HEADERS)

    async def delete(self, request: Request, call: Call) -> Response:
        """Deletes a response; those that go on from it can be read still, and not be continued."""
        response_id = request.path_params["response_id"]
        if self.store is None or not await asyncio.to_thread(self.store.delete, call.principal.key_id, response_id):
            raise _not_found(response_id)
        return _json({"id": response_id, "object": "response", "deleted": True})

    async def cancel(self, request: Request, call: Call) -> Response:
        """Refused: only responses in the background could be cancelled, and there are none."""
        await self._get(request, call)
        raise InvalidRequest("Cannot cancel a synchronous response.")

    async def list_input_items(self, request: Request, call: Call) -> Response:
        """The items a response was made from, those of the responses before it among them."""
        limit = _integer(request, "limit", DEFAULT_LISTED, 1, MAX_LISTED)
        order, after = request.query_params.get("order", "desc"), request.query_params.get("after")
        if order not in ("asc", "desc"):
            raise InvalidRequest("'order' must be 'asc' or 'desc'.", field="order")
        stored = await self._get(request, call)
        earlier = await self._earlier(call, stored.previous_response_id, is_whole=False)
        items = [*earlier, *stored.input]
        if order == "desc":
            items.reverse()
        if after is not None:
            index = next((index for index, item in enumerate(items) if item["id"] == after), None)
            if index is None:
                raise InvalidRequest(f"No item with id '{after}' is among them.", field="after")
            items = items[index + 1 :]
        listed = items[:limit]
        return _json(
            {
                "object": "list",
                "data": listed,
                "first_id": listed[0]["id"] if listed else None,
                "last_id": listed[-1]["id"] if listed else None,
                "has_more": len(items) > limit,
            }
        )

    async def _to_request(
        self, call: Call, body: ResponseRequest, entry: ModelEntry, response_id: str
    ) -> tuple[list[dict[str, Any]], GenerationRequest]:
        """The listed items of a request's own input, and what it asks of the model."""
        check_response(body)
        earlier = await self._earlier(call, body.previous_response_id)
        given = body.input if isinstance(body.input, str) else await self._resolve_references(call, body.input)
        own = input_items(given, response_id)
        all_tools = to_tools(body.tools or ())
        tools, tool_choice = choose(all_tools, body.tool_choice)
        format = body.text.format if body.text is not None else None
        grammar = None if format is None else from_text_format(format, "text.format")
        return own, GenerationRequest(
            model=entry.name,
            adapter=entry.adapter,
            messages=to_conversation([*earlier, *own], len(earlier), body.instructions, all_tools, entry),
            tools=tools,
            tool_choice=tool_choice,
            parallel_tool_calls=body.parallel_tool_calls is not False,
            grammar=to_grammar(body) if grammar is None else grammar,
            context=to_context(body),
            sampling=to_sampling(
                body,
                entry,
                max_tokens=body.max_output_tokens,
                max_tokens_field="max_output_tokens",
                logprobs=body.logprobs,
            ),
        )

    async def _earlier(self, call: Call, response_id: str | None, *, is_whole: bool = True) -> list[dict[str, Any]]:
        """The items of a response and of all before it; where one is missing, an error or what is left."""
        if response_id is None:
            return []
        history: list[StoredResponse] = []
        if self.store is not None:
            history = await asyncio.to_thread(self.store.history, call.principal.key_id, response_id)
        missing = history[0].previous_response_id if history else response_id
        if missing is not None and is_whole:
            raise OpenAIError(
                400,
                f"Previous response with id '{missing}' not found.",
                "invalid_request_error",
                param="previous_response_id",
                code="previous_response_not_found",
            )
        items = [item for each in history for item in (*each.input, *each.body["output"])]
        # A call that was cut off has no arguments to go on from.
        return [item for item in items if item["type"] != "function_call" or item["status"] == "completed"]

    async def _resolve_references(self, call: Call, items: Sequence[Item]) -> list[Item]:
        """The items with references to kept ones replaced by those."""
        resolved = []
        for index, item in enumerate(items):
            # The type of a reference may be left out.
            if item.type == "item_reference" or (item.type is None and item.role is None and item.id):
                item = await self._referenced(call, item.id or "", f"input[{index}].id")
            resolved.append(item)
        return resolved

    async def _referenced(self, call: Call, item_id: str, param: str) -> Item:
        response_id = response_of_item(item_id)
        stored = None
        if self.store is not None and response_id is not None:
            stored = await asyncio.to_thread(self.store.get, call.principal.key_id, response_id)
        for item in (*stored.input, *stored.body["output"]) if stored is not None else ():
            if item["id"] == item_id:
                return msgspec.convert(item, Item)
        raise OpenAIError(404, f"Item with id '{item_id}' not found.", "invalid_request_error", param=param)

    async def _get(self, request: Request, call: Call) -> StoredResponse:
        response_id = request.path_params["response_id"]
        stored = None
        if self.store is not None:
            stored = await asyncio.to_thread(self.store.get, call.principal.key_id, response_id)
        if stored is None:
            raise _not_found(response_id)
        return stored


class _Run:
    """One response while it is made; it is kept in `store`, if there is one, before its client learns its end."""

    def __init__(
        self, call: Call, builder: ResponseBuilder, store: ResponseStore | None, own: list[dict[str, Any]]
    ) -> None:
        self._call = call
        self._builder = builder
        self._store = store
        self._own = own

    async def collect(self, generations: Sequence[Generation]) -> None:
        """Reads the generation to its end."""
        async with contextlib.aclosing(follow(generations)) as events:
            async for _, event in events:
                for _ in self._builder.push(event):
                    pass
        await self._save()

    async def stream(
        self, first: tuple[int, GenerationEvent], events: AsyncGenerator[tuple[int, GenerationEvent], None]
    ) -> AsyncGenerator[bytes, None]:
        """The server-sent events, up to the last."""
        try:
            for event in self._builder.begin():
                yield _sse(event)
            following: tuple[int, GenerationEvent] | None = first
            while following is not None:
                for event in self._builder.push(following[1]):
                    if event["type"] in ("response.completed", "response.incomplete"):
                        await self._save()
                    yield _sse(event)
                following = await anext(events, None)
        except Exception as error:
            answered = to_openai_error(error)
            self._call.error = answered.name
            for event in self._builder.fail(answered):
                yield _sse(event)

    async def _save(self) -> None:
        if self._store is not None:
            response = self._builder.response
            stored = StoredResponse(
                body=response, input=self._own, previous_response_id=response["previous_response_id"]
            )
            await asyncio.to_thread(self._store.save, self._call.principal.key_id, stored)


def _to_object(
    response_id: str, body: ResponseRequest, request: GenerationRequest, call: Call, *, is_kept: bool
) -> dict[str, Any]:
    format = body.text.format if body.text is not None else None
    return {
        "id": response_id,
        "object": "response",
        "created_at": int(time.time()),
        "status": "in_progress",
        "background": False,
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "max_tool_calls": body.max_tool_calls,
        "metadata": body.metadata or {},
        "model": body.model,
        "output": [],
        "parallel_tool_calls": request.parallel_tool_calls,
        "previous_response_id": body.previous_response_id,
        "prompt_cache_key": body.prompt_cache_key,
        "reasoning": {"effort": None, "summary": None},
        "safety_identifier": body.safety_identifier,
        "service_tier": call.service_tier,
        "store": is_kept,
        "temperature": request.sampling.temperature,
        "text": {"format": {"type": "text"} if format is None else msgspec.to_builtins(format)},
        "tool_choice": msgspec.to_builtins(body.tool_choice) or "auto",
        "tools": msgspec.to_builtins(body.tools or []),
        "top_logprobs": body.top_logprobs or 0,
        "top_p": request.sampling.top_p,
        "truncation": body.truncation or "disabled",
        **context_fields(call),
        "usage": None,
        "user": body.user,
    }


def _not_found(response_id: str) -> OpenAIError:
    return OpenAIError(404, f"Response with id '{response_id}' not found.", "invalid_request_error")


def _integer(request: Request, name: str, default: int, least: int, most: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not text.lstrip("-").isdecimal() or len(text) > 12 or not least <= int(text) <= most:
        raise InvalidRequest(f"'{name}' must be an integer from {least} to {most}.", field=name)
    return int(text)


def _sse(event: Event) -> bytes:
    return sse(event, event["type"])


def _json(value: Any) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")
