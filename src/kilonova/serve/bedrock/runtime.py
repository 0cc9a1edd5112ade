"""The `bedrock-runtime` service: Converse, InvokeModel, their streams, and CountTokens."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kilonova.core.errors import EngineError, InvalidRequest
from kilonova.core.types import Finished, GenerationEvent, TextDelta, ToolUse
from kilonova.serve.bedrock import native
from kilonova.serve.bedrock.errors import error_frame, to_bedrock_error
from kilonova.serve.bedrock.eventstream import MEDIA_TYPE, encode_event
from kilonova.serve.bedrock.messages import additional_top_k, from_content, to_request, unsupported
from kilonova.serve.bedrock.protocol import endpoint
from kilonova.serve.bedrock.shapes import OperationShapes, Service
from kilonova.serve.call import Call
from kilonova.serve.gateway import Gateway
from kilonova.serve.generation import StreamedResponse, begin, collect, until_disconnect
from kilonova.serve.http import read_body

if TYPE_CHECKING:
    from kilonova.engine.engine import Generation

IndexedEvent = tuple[int, GenerationEvent]

_LATENCY_HEADER = "X-Amzn-Bedrock-PerformanceConfig-Latency"
_TIER_HEADER = "X-Amzn-Bedrock-Service-Tier"


class Runtime:
    """The operations over the models of one server."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.service = Service(
            "bedrock-runtime",
            ("Converse", "ConverseStream", "InvokeModel", "InvokeModelWithResponseStream", "CountTokens"),
            resolved=("modelId",),
        )

    def routes(self) -> list[Route]:
        """The routes, for raw paths; the model's identifier may hold slashes."""
        operations = {
            "converse": ("Converse", self.converse),
            "converse-stream": ("ConverseStream", self.converse_stream),
            "invoke": ("InvokeModel", self.invoke_model),
            "invoke-with-response-stream": ("InvokeModelWithResponseStream", self.invoke_model_with_response_stream),
            "count-tokens": ("CountTokens", self.count_tokens),
        }
        return [
            Route(f"/model/{{model_id:path}}/{path}", endpoint(name, handler, self.service.statuses), methods=["POST"])
            for path, (name, handler) in operations.items()
        ]

    async def converse(self, request: Request, call: Call) -> Response:
        """POST /model/{modelId}/converse."""
        shapes = self.service["Converse"]
        parameters = await self._parse(request, call, shapes)
        pointers = _check_pointers(parameters.get("additionalModelResponseFieldPaths", ()))
        generation = await self._submit_converse(call, parameters)
        (answer,) = await until_disconnect(request.receive, collect([generation]))
        content = from_content(answer.content)
        body = shapes.write(
            {
                "output": {"message": {"role": "assistant", "content": content}},
                "stopReason": answer.finished.stop_reason,
                "usage": _usage(answer.finished),
                "metrics": {"latencyMs": _milliseconds(answer.finished.latency)},
                "additionalModelResponseFields": _select(native.response(content, answer.finished), pointers),
                "performanceConfig": parameters.get("performanceConfig"),
                "serviceTier": parameters.get("serviceTier"),
            }
        )
        return Response(body, media_type="application/json", headers=_count_headers(answer.finished))

    async def converse_stream(self, request: Request, call: Call) -> Response:
        """POST /model/{modelId}/converse-stream."""
        shapes = self.service["ConverseStream"]
        parameters = await self._parse(request, call, shapes)
        pointers = _check_pointers(parameters.get("additionalModelResponseFieldPaths", ()))
        first, events = await begin(request.receive, [await self._submit_converse(call, parameters)])

        def finish(finished: Finished) -> list[tuple[str, dict[str, Any]]]:
            fields = {"stopReason": finished.stop_reason, "usage": native.usage(finished)}
            stop = {"stopReason": finished.stop_reason, "additionalModelResponseFields": _select(fields, pointers)}
            metadata = {
                "usage": _usage(finished),
                "metrics": {"latencyMs": _milliseconds(finished.latency)},
                "performanceConfig": parameters.get("performanceConfig"),
                "serviceTier": parameters.get("serviceTier"),
            }
            return [("messageStop", stop), ("metadata", metadata)]

        def write(name: str, event: dict[str, Any]) -> bytes:
            return encode_event(name, msgspec.json.encode(shapes.events[name](event)))

        return StreamedResponse(_frames(first, events, finish, write), [events], media_type=MEDIA_TYPE)

    async def invoke_model(self, request: Request, call: Call) -> Response:
        """POST /model/{modelId}/invoke with a `messages-v1` body."""
        parameters = await self._parse(request, call, self.service["InvokeModel"])
        generation = await self._submit_native(call, parameters)
        (answer,) = await until_disconnect(request.receive, collect([generation]))
        return Response(
            msgspec.json.encode(native.response(from_content(answer.content), answer.finished)),
            media_type="application/json",
            headers={**_count_headers(answer.finished), **_echo_headers(parameters)},
        )

    async def invoke_model_with_response_stream(self, request: Request, call: Call) -> Response:
        """POST /model/{modelId}/invoke-with-response-stream with a `messages-v1` body."""
        shapes = self.service["InvokeModelWithResponseStream"]
        parameters = await self._parse(request, call, shapes)
        first, events = await begin(request.receive, [await self._submit_native(call, parameters)])

        def finish(finished: Finished) -> list[tuple[str, dict[str, Any]]]:
            metadata = {"usage": native.usage(finished), "metrics": {}, "trace": {}}
            metrics = {"amazon-bedrock-invocationMetrics": native.invocation_metrics(finished)}
            return [("messageStop", {"stopReason": finished.stop_reason}), ("", {"metadata": metadata, **metrics})]

        def write(name: str, event: dict[str, Any]) -> bytes:
            chunk = msgspec.json.encode({name: event} if name else event)
            return encode_event("chunk", msgspec.json.encode(shapes.events["chunk"]({"bytes": chunk})))

        return StreamedResponse(
            _frames(first, events, finish, write),
            [events],
            media_type=MEDIA_TYPE,
            headers={"X-Amzn-Bedrock-Content-Type": "application/json", **_echo_headers(parameters)},
        )

    async def count_tokens(self, request: Request, call: Call) -> Response:
        """POST /model/{modelId}/count-tokens."""
        shapes = self.service["CountTokens"]
        parameters = await self._parse(request, call, shapes)
        entry = self.gateway.resolve(call, parameters["modelId"])
        given = parameters["input"]
        if "invokeModel" in given:
            counted = native.parse_body(given["invokeModel"]["body"], self.service["Converse"], entry)
        else:
            converse = given["converse"]
            counted = to_request(converse, entry, top_k=additional_top_k(converse.get("additionalModelRequestFields")))
        count = await self.gateway.count_tokens(entry, counted)
        return Response(shapes.write({"inputTokens": count}), media_type="application/json")

    async def _parse(self, request: Request, call: Call, shapes: OperationShapes) -> dict[str, Any]:
        body = await read_body(request)
        entry = self.gateway.resolve(call, unquote(request.path_params["model_id"]))
        return {**shapes.parse(body, headers=request.headers), "modelId": entry.name}

    async def _submit_converse(self, call: Call, parameters: Mapping[str, Any]) -> Generation:
        entry = self.gateway.resolve(call, parameters["modelId"])
        top_k = additional_top_k(parameters.get("additionalModelRequestFields"))
        converted = to_request(parameters, entry, top_k=top_k)
        return (await self.gateway.submit(call, entry, [converted], shorten=True))[0]

    async def _submit_native(self, call: Call, parameters: Mapping[str, Any]) -> Generation:
        entry = self.gateway.resolve(call, parameters["modelId"])
        for member in ("guardrailIdentifier", "guardrailVersion"):
            if parameters.get(member):
                raise unsupported(member)
        parsed = native.parse_body(parameters["body"], self.service["Converse"], entry)
        return (await self.gateway.submit(call, entry, [parsed], shorten=True))[0]


async def _frames(
    first: IndexedEvent,
    events: AsyncGenerator[IndexedEvent, None],
    finish: Callable[[Finished], list[tuple[str, dict[str, Any]]]],
    write: Callable[[str, dict[str, Any]], bytes],
) -> AsyncGenerator[bytes, None]:
    """The frames of a whole stream; a fault on the way becomes an exception frame."""
    try:
        async for name, event in _stream_events(first, events, finish):
            yield write(name, event)
    except Exception as error:
        yield error_frame(to_bedrock_error(error))


async def _stream_events(
    first: IndexedEvent,
    events: AsyncGenerator[IndexedEvent, None],
    finish: Callable[[Finished], list[tuple[str, dict[str, Any]]]],
) -> AsyncGenerator[tuple[str, dict[str, Any]], None]:
    """Bedrock's stream events, in their order: each text run and each tool call is a content block of its own."""
    yield "messageStart", {"role": "assistant"}
    index = 0
    text_is_open = False
    _, event = first
    while not isinstance(event, Finished):
        if isinstance(event, TextDelta) and event.text:
            text_is_open = True
            yield "contentBlockDelta", {"delta": {"text": event.text}, "contentBlockIndex": index}
        elif isinstance(event, ToolUse):
            if text_is_open:
                yield "contentBlockStop", {"contentBlockIndex": index}
                text_is_open = False
                index += 1
            block = event.block
            start = {"toolUse": {"toolUseId": block.id, "name": block.name}}
            arguments = msgspec.json.encode(block.input).decode()
            yield "contentBlockStart", {"start": start, "contentBlockIndex": index}
            yield "contentBlockDelta", {"delta": {"toolUse": {"input": arguments}}, "contentBlockIndex": index}
            yield "contentBlockStop", {"contentBlockIndex": index}
            index += 1
        following = await anext(events, None)
        if following is None:
            raise EngineError("the generation ended before its last event")
        _, event = following
    if index == 0 and not text_is_open:
        yield "contentBlockDelta", {"delta": {"text": ""}, "contentBlockIndex": index}
        text_is_open = True
    if text_is_open:
        yield "contentBlockStop", {"contentBlockIndex": index}
    for name, payload in finish(event):
        yield name, payload


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _usage(finished: Finished) -> dict[str, int]:
    return {
        "inputTokens": finished.usage.input_tokens,
        "outputTokens": finished.usage.output_tokens,
        "totalTokens": finished.usage.total_tokens,
        "cacheReadInputTokens": 0,
        "cacheWriteInputTokens": 0,
    }


def _count_headers(finished: Finished) -> dict[str, str]:
    return {
        "X-Amzn-Bedrock-Input-Token-Count": str(finished.usage.input_tokens),
        "X-Amzn-Bedrock-Output-Token-Count": str(finished.usage.output_tokens),
        "X-Amzn-Bedrock-Cache-Read-Input-Token-Count": "0",
        "X-Amzn-Bedrock-Cache-Write-Input-Token-Count": "0",
        "X-Amzn-Bedrock-Invocation-Latency": str(_milliseconds(finished.latency)),
    }


def _echo_headers(parameters: Mapping[str, Any]) -> dict[str, str]:
    given = {_LATENCY_HEADER: parameters.get("performanceConfigLatency"), _TIER_HEADER: parameters.get("serviceTier")}
    return {name: value for name, value in given.items() if value is not None}


def _check_pointers(paths: list[str] | tuple[str, ...]) -> list[list[str]]:
    """JSON pointers (RFC 6901) as lists of members; raises InvalidRequest for what is not one."""
    pointers = []
    for index, path in enumerate(paths):
        if not path.startswith("/") or re.search("~(?![01])", path):
            raise InvalidRequest(
                f"The value {path!r} at additionalModelResponseFieldPaths.{index} is not a JSON pointer. "
                "Start it with '/' and name members, such as '/stopReason'.",
                field=f"additionalModelResponseFieldPaths.{index}",
            )
        pointers.append([part.replace("~1", "/").replace("~0", "~") for part in path[1:].split("/")])
    return pointers


def _select(response: Mapping[str, Any], pointers: list[list[str]]) -> dict[str, Any] | None:
    """The members of `response` that the pointers name, nested as they are there; what is not there is left out."""
    selected: dict[str, Any] = {}
    covered: set[tuple[str, ...]] = set()
    for pointer in sorted(pointers, key=len):
        if any(tuple(pointer[:length]) in covered for length in range(1, len(pointer) + 1)):
            continue
        value: Any = response
        for part in pointer:
            if isinstance(value, Mapping):
                value = value.get(part)
            elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
                value = value[int(part)]
            else:
                value = None
        if value is None:
            continue
        target = selected
        for part in pointer[:-1]:
            target = target.setdefault(part, {})
        target[pointer[-1]] = value
        covered.add(tuple(pointer))
    return selected or None
