"""The `bedrock-runtime` service: Converse, InvokeModel, their streams, and CountTokens."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kilonova.core.types import Finished, GenerationRequest, ServiceTier
from kilonova.serve.bedrock import native
from kilonova.serve.bedrock.cache_points import cache_points
from kilonova.serve.bedrock.engine_errors import named_as_sent
from kilonova.serve.bedrock.errors import BedrockError
from kilonova.serve.bedrock.eventstream import MEDIA_TYPE, encode_event
from kilonova.serve.bedrock.inference import ADDITIONAL_FIELDS
from kilonova.serve.bedrock.invalid import constraint, unsupported
from kilonova.serve.bedrock.messages import from_content, to_request
from kilonova.serve.bedrock.protocol import endpoint
from kilonova.serve.bedrock.response_fields import parse_pointers, select
from kilonova.serve.bedrock.shapes import OperationShapes, Service
from kilonova.serve.bedrock.streams import NamedEvent, encode, frames, stream_events
from kilonova.serve.bedrock.usage import (
    converse_usage,
    count_headers,
    invocation_metrics,
    milliseconds,
    native_usage,
)
from kilonova.serve.call import Call
from kilonova.serve.gateway import Gateway
from kilonova.serve.generation import StreamedResponse, begin, collect, until_disconnect
from kilonova.serve.http import read_body
from kilonova.serve.pictures import drawn

if TYPE_CHECKING:
    from kilonova.engine.generation import Generation
    from kilonova.models.registry import ModelEntry
    from kilonova.serve.bedrock.canvas import CanvasRequest
    from kilonova.studio.tasks import ImageResult

_LATENCY_HEADER = "X-Amzn-Bedrock-PerformanceConfig-Latency"
_TIER_HEADER = "X-Amzn-Bedrock-Service-Tier"
_METADATA = "requestMetadata"

# Nothing is reserved here beforehand: such requests go where the ones that pay for their turn go.
_TIERS: dict[str, ServiceTier] = {
    "priority": "priority",
    "default": "default",
    "flex": "flex",
    "reserved": "priority",
}


class Runtime:
    """The operations over the models of one server."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.service = Service(
            "bedrock-runtime",
            ("Converse", "ConverseStream", "InvokeModel", "InvokeModelWithResponseStream", "CountTokens"),
            resolved=("modelId",),
        )
        self._native = native.NativeBodies(self.service)
        self._check_metadata = self.service.checker("RequestMetadata")

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
        entry, parameters = await self._parse_text(request, call, shapes)
        pointers, asked = _prepare_converse(call, entry, parameters)
        generation = await self._submit_converse(call, entry, asked, parameters)
        (answer,) = await until_disconnect(request.receive, collect([generation]))
        content = from_content(answer.content)
        body = shapes.write(
            {
                "output": {"message": {"role": "assistant", "content": content}},
                "stopReason": answer.finished.stop_reason,
                "additionalModelResponseFields": select(native.response(content, answer.finished, call), pointers),
                **_closing(asked, parameters, answer.finished),
            }
        )
        return Response(body, media_type="application/json", headers=count_headers(answer.finished))

    async def converse_stream(self, request: Request, call: Call) -> Response:
        """POST /model/{modelId}/converse-stream."""
        shapes = self.service["ConverseStream"]
        entry, parameters = await self._parse_text(request, call, shapes)
        pointers, asked = _prepare_converse(call, entry, parameters)
        generation = await self._submit_converse(call, entry, asked, parameters)
        first, events = await begin(request.receive, [generation])

        def finish(finished: Finished) -> list[NamedEvent]:
            fields = {
                "stopReason": finished.stop_reason,
                "usage": native_usage(finished.usage),
                **native.context_management(call),
            }
            stop = {"stopReason": finished.stop_reason, "additionalModelResponseFields": select(fields, pointers)}
            return [("messageStop", stop), ("metadata", _closing(asked, parameters, finished))]

        def write(name: str, event: dict[str, Any]) -> bytes:
            return encode_event(name, encode(shapes.events[name](event)))

        chunks = frames(call, stream_events(first, events, finish), write, shapes.exceptions)
        return StreamedResponse(chunks, [events], media_type=MEDIA_TYPE)

    async def invoke_model(self, request: Request, call: Call) -> Response:
        """POST /model/{modelId}/invoke with a `messages-v1` body, or Canvas's."""
        entry, parameters = await self._parse(request, call, self.service["InvokeModel"])
        if entry.makes_pictures:
            return await self._draw(request, call, entry, parameters)
        generation = await self._submit_native(call, entry, parameters)
        (answer,) = await until_disconnect(request.receive, collect([generation]))
        return Response(
            encode(native.response(from_content(answer.content), answer.finished, call)),
            media_type="application/json",
            headers={**count_headers(answer.finished), **_echo_headers(parameters)},
        )

    async def invoke_model_with_response_stream(self, request: Request, call: Call) -> Response:
        """POST /model/{modelId}/invoke-with-response-stream with a `messages-v1` body."""
        shapes = self.service["InvokeModelWithResponseStream"]
        entry, parameters = await self._parse(request, call, shapes)
        if entry.makes_pictures:
            raise BedrockError("ValidationException", "The model is unsupported for streaming.")
        first, events = await begin(request.receive, [await self._submit_native(call, entry, parameters)])

        def finish(finished: Finished) -> list[NamedEvent]:
            usage = native_usage(finished.usage)
            metadata = {"usage": usage, "metrics": {}, "trace": {}, **native.context_management(call)}
            metrics = {"amazon-bedrock-invocationMetrics": invocation_metrics(finished)}
            return [("messageStop", {"stopReason": finished.stop_reason}), ("", {"metadata": metadata, **metrics})]

        def write(name: str, event: dict[str, Any]) -> bytes:
            chunk = encode({name: event} if name else event)
            return encode_event("chunk", encode(shapes.events["chunk"]({"bytes": chunk})))

        return StreamedResponse(
            frames(call, stream_events(first, events, finish), write, shapes.exceptions),
            [events],
            media_type=MEDIA_TYPE,
            headers={"X-Amzn-Bedrock-Content-Type": "application/json", **_echo_headers(parameters)},
        )

    async def count_tokens(self, request: Request, call: Call) -> Response:
        """POST /model/{modelId}/count-tokens."""
        shapes = self.service["CountTokens"]
        entry, parameters = await self._parse(request, call, shapes)
        if entry.makes_pictures:
            raise BedrockError("ValidationException", "The provided model doesn't support counting tokens.")
        given = parameters["input"]
        is_native = "invokeModel" in given
        if is_native:
            counted = self._native.parse(given["invokeModel"]["body"], entry)
        else:
            counted = to_request(given["converse"], entry)
        with named_as_sent("" if is_native else f"{ADDITIONAL_FIELDS}."):
            count = await self.gateway.count_tokens(call, entry, counted)
        return Response(shapes.write({"inputTokens": count}), media_type="application/json")

    async def _parse(self, request: Request, call: Call, shapes: OperationShapes) -> tuple[ModelEntry, dict[str, Any]]:
        body = await read_body(request)
        entry = self.gateway.resolve(call, unquote(request.path_params["model_id"]))
        return entry, shapes.parse(body, headers=request.headers)

    async def _parse_text(
        self, request: Request, call: Call, shapes: OperationShapes
    ) -> tuple[ModelEntry, dict[str, Any]]:
        body = await read_body(request)
        entry = self.gateway.resolve_text(call, unquote(request.path_params["model_id"]))
        return entry, shapes.parse(body, headers=request.headers)

    async def _draw(self, request: Request, call: Call, entry: ModelEntry, parameters: Mapping[str, Any]) -> Response:
        self._take_options(call, parameters)
        asked = await self.gateway.decode(call, entry, partial(_parse_canvas, parameters["body"]))
        with asked.named_as_sent():
            results = await drawn(request.receive, await self.gateway.draw(call, entry, [asked.request]))
        body = await asyncio.to_thread(_write_canvas, results, entry.name)
        latency = {"X-Amzn-Bedrock-Invocation-Latency": str(milliseconds(time.perf_counter() - call.started))}
        return Response(body, media_type="application/json", headers={**latency, **_echo_headers(parameters)})

    async def _submit_converse(
        self, call: Call, entry: ModelEntry, asked: GenerationRequest, parameters: Mapping[str, Any]
    ) -> Generation:
        has_output_format = "textFormat" in parameters.get("outputConfig", {})
        with named_as_sent(f"{ADDITIONAL_FIELDS}.", has_output_format=has_output_format):
            return (await self.gateway.submit(call, entry, [asked], shorten=True))[0]

    def _take_options(self, call: Call, parameters: Mapping[str, Any]) -> None:
        """Tells the call what InvokeModel says beside the body."""
        for member in ("guardrailIdentifier", "guardrailVersion"):
            if parameters.get(member):
                raise unsupported(member)
        call.service_tier = _TIERS[parameters.get("serviceTier", "default")]
        if parameters.get(_METADATA):
            call.metadata = self._read_metadata(parameters[_METADATA])

    async def _submit_native(self, call: Call, entry: ModelEntry, parameters: Mapping[str, Any]) -> Generation:
        self._take_options(call, parameters)
        asked = self._native.parse(parameters["body"], entry)
        with named_as_sent(""):
            return (await self.gateway.submit(call, entry, [asked], shorten=True))[0]

    def _read_metadata(self, text: str) -> Mapping[str, str]:
        try:
            value = msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError):
            raise constraint(_METADATA, text, "a JSON object") from None
        return self._check_metadata(value, _METADATA)


def _prepare_converse(
    call: Call, entry: ModelEntry, parameters: Mapping[str, Any]
) -> tuple[list[list[str]], GenerationRequest]:
    """The pointers to what the answer is to repeat, and the core request; what concerns the call is told to it."""
    call.service_tier = _TIERS[parameters.get("serviceTier", {"type": "default"})["type"]]
    call.metadata = parameters.get("requestMetadata", {})
    pointers = parse_pointers(parameters.get("additionalModelResponseFieldPaths", ()))
    return pointers, to_request(parameters, entry)


def _closing(asked: GenerationRequest, parameters: Mapping[str, Any], finished: Finished) -> dict[str, Any]:
    """What Converse and its stream say at the end about the whole answer."""
    return {
        "usage": converse_usage(finished.usage, [point.ttl for point in cache_points(asked.messages)]),
        "metrics": {"latencyMs": milliseconds(finished.latency)},
        "performanceConfig": parameters.get("performanceConfig"),
        "serviceTier": parameters.get("serviceTier"),
    }


def _parse_canvas(body: bytes) -> CanvasRequest:
    # It needs PyTorch, which is not to hold up the server's start.
    from kilonova.serve.bedrock import canvas

    return canvas.parse(body)


def _write_canvas(results: Sequence[ImageResult], model: str) -> bytes:
    from kilonova.serve.bedrock import canvas

    return canvas.response(results, model)


def _echo_headers(parameters: Mapping[str, Any]) -> dict[str, str]:
    given = {_LATENCY_HEADER: parameters.get("performanceConfigLatency"), _TIER_HEADER: parameters.get("serviceTier")}
    return {name: value for name, value in given.items() if value is not None}
