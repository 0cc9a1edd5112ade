"""POST /v1/images/generations, /v1/images/edits and /v1/images/variations, and the pictures at their addresses."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from kilonova.core.errors import InvalidRequest
from kilonova.serve.call import Call
from kilonova.serve.gateway import Gateway
from kilonova.serve.generation import StreamedResponse
from kilonova.serve.http import read_body
from kilonova.serve.multipart import parse_multipart
from kilonova.serve.openai.errors import OpenAIError, convert, decode
from kilonova.serve.openai.image_requests import (
    DrawnFields,
    ImageEditRequest,
    ImageFields,
    ImageGenerationRequest,
    ImageVariationRequest,
)
from kilonova.serve.openai.wire import SSE_HEADERS, SSE_MEDIA_TYPE, sse
from kilonova.serve.picture_store import PictureStore
from kilonova.serve.pictures import drawn

if TYPE_CHECKING:
    from kilonova.models.registry import ModelEntry
    from kilonova.studio.tasks import ImageRequest, ImageResult

FILES_PREFIX = "/kilonova/pictures/"

Fields = TypeVar("Fields", bound=ImageFields)

_decoder = msgspec.json.Decoder(ImageGenerationRequest)
# Pictures are counted here, and not what they are made of.
_NO_TOKENS = {
    "input_tokens": 0,
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
    "output_tokens": 0,
    "output_tokens_details": {"image_tokens": 0, "text_tokens": 0},
    "total_tokens": 0,
}


class Images:
    """The endpoints over the models of one server."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self._store = PictureStore()

    async def generate(self, request: Request, call: Call) -> Response:
        """New pictures."""
        body: ImageGenerationRequest = decode(_decoder, await read_body(request))
        body.check()
        entry = self._resolve(call, body)

        def parse() -> list[ImageRequest]:
            from kilonova.serve.openai.image_tasks import to_generations

            return to_generations(body)

        return await self._answer(request, call, entry, body, parse, "image_generation")

    async def edit(self, request: Request, call: Call) -> Response:
        """Pictures made of others."""
        body, files = await _read_form(request, ImageEditRequest, ("image", "mask"))
        body.check()
        entry = self._resolve(call, body)
        if len(files["mask"]) > 1:
            raise InvalidRequest("A single mask can be given.", field="mask")

        def parse() -> list[ImageRequest]:
            from kilonova.serve.openai.image_tasks import to_edits

            return to_edits(body, files["image"], next(iter(files["mask"]), None))

        return await self._answer(request, call, entry, body, parse, "image_edit")

    async def vary(self, request: Request, call: Call) -> Response:
        """Pictures like another."""
        body, files = await _read_form(request, ImageVariationRequest, ("image",))
        entry = self._resolve(call, body)
        if len(files["image"]) > 1:
            raise InvalidRequest("A single image can be given.", field="image")

        def parse() -> list[ImageRequest]:
            from kilonova.serve.openai.image_tasks import to_variations

            return to_variations(body, files["image"][0])

        return await self._answer(request, call, entry, body, parse, "image_variation")

    async def file(self, request: Request) -> Response:
        """A picture at the address that was given for it, without a key, for as long as it is kept."""
        picture = self._store.get(request.path_params["name"])
        if picture is None:
            message = "There is no such picture, or no longer."
            return OpenAIError(404, message, "invalid_request_error", code="not_found").response()
        return Response(picture.data, media_type=picture.media_type, headers={"cache-control": "private, immutable"})

    def _resolve(self, call: Call, body: ImageFields) -> ModelEntry:
        name = body.model
        if name is None:
            name = next((entry.name for entry in self.gateway.entries(call) if entry.makes_pictures), None)
        if name is None:
            message = "There is no model of pictures here."
            raise OpenAIError(404, message, "invalid_request_error", param="model", code="model_not_found")
        return self.gateway.resolve_pictures(call, name)

    async def _answer(
        self,
        request: Request,
        call: Call,
        entry: ModelEntry,
        body: ImageFields,
        parse: Callable[[], list[ImageRequest]],
        event: str,
    ) -> Response:
        requests = await self.gateway.decode(call, entry, parse)
        drawing = body if isinstance(body, DrawnFields) else None
        transparent = drawing is not None and drawing.is_transparent
        results = await drawn(request.receive, await self.gateway.draw(call, entry, requests, transparent=transparent))
        file_format = (drawing and drawing.output_format) or "png"
        compression = 100 if drawing is None or drawing.output_compression is None else drawing.output_compression
        files = await asyncio.to_thread(_encode, results, file_format, entry.name, compression)
        assert call.images is not None
        head = {
            "background": "transparent" if transparent else "opaque",
            "output_format": file_format,
            "quality": "high" if call.images.premium else "medium",
            "size": call.images.size,
        }
        if drawing is not None and drawing.stream:
            return _stream(event, files, head)
        base_url = str(request.base_url).rstrip("/")
        answer = {
            "created": int(time.time()),
            **head,
            "data": [self._to_datum(file, file_format, body, base_url) for file in files],
            "usage": {**_NO_TOKENS, "images": len(files)},
        }
        return Response(msgspec.json.encode(answer), media_type="application/json")

    def _to_datum(self, file: bytes, file_format: str, body: ImageFields, base_url: str) -> dict[str, Any]:
        if body.response_format == "url":
            return {"url": f"{base_url}{FILES_PREFIX}{self._store.add(file, file_format)}"}
        return {"b64_json": base64.b64encode(file).decode()}


def _stream(event: str, files: Sequence[bytes], head: Mapping[str, Any]) -> Response:
    """The finished pictures as events; unfinished ones are never sent, which `partial_images` allows."""

    async def events() -> AsyncGenerator[bytes, None]:
        for file in files:
            name = f"{event}.completed"
            whole = {"type": name, "created_at": int(time.time()), "b64_json": base64.b64encode(file).decode(), **head}
            yield sse({**whole, "usage": {**_NO_TOKENS, "images": 1}}, name)

    return StreamedResponse(events(), [], media_type=SSE_MEDIA_TYPE, headers=SSE_HEADERS)


def _encode(results: Sequence[ImageResult], file_format: Any, model: str, compression: int) -> list[bytes]:
    from kilonova.serve.picture_files import encode

    return [
        encode(image, file_format, result, model, compression=compression)
        for result in results
        for image in result.images
    ]


async def _read_form(
    request: Request, kind: type[Fields], file_names: Sequence[str]
) -> tuple[Fields, dict[str, list[bytes]]]:
    """The fields of a form, and its files by name; several files of one name end in `[]`."""
    files: dict[str, list[bytes]] = {name: [] for name in file_names}
    fields: dict[str, str] = {}
    for given, value in await parse_multipart(await read_body(request), request.headers):
        name = given.removesuffix("[]")
        if (name in files) != isinstance(value, bytes):
            raise InvalidRequest(f"'{name}' must be {'a file' if name in files else 'text'}.", field=name)
        if isinstance(value, bytes):
            files[name].append(value)
        elif name in fields:
            raise InvalidRequest(f"'{name}' is given twice.", field=name)
        else:
            fields[name] = value
    if not files["image"]:
        raise InvalidRequest("Missing required parameter: 'image'.", field="image")
    return convert(fields, kind), files
