"""The HTTP application: every protocol's routes on raw paths, request ids and the access log."""

from __future__ import annotations

import contextlib
import logging
import time
import uuid
from collections.abc import AsyncIterator

import msgspec
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kilonova.serve.bedrock.control import Control
from kilonova.serve.bedrock.errors import BedrockError, error_response
from kilonova.serve.bedrock.runtime import Runtime
from kilonova.serve.call import Call, set_call
from kilonova.serve.gateway import Gateway
from kilonova.serve.models import ModelServer
from kilonova.serve.openai.errors import OpenAIError
from kilonova.serve.openai.models import routes as openai_routes

access_logger = logging.getLogger("kilonova.access")

OPENAI_PREFIX = "/v1/"


class CallMiddleware:
    """Makes a `Call` of each request, routes on the path as it was sent, and logs it when it is answered.

    Bedrock's model identifiers may be ARNs, whose slashes are percent-encoded: decoding before routing would split
    them.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        call = Call(id=str(uuid.uuid4()), started=time.perf_counter())
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-amzn-RequestId"] = call.id
                headers["x-request-id"] = call.id
                headers.update(call.headers)
            await send(message)

        path = scope["raw_path"].decode("latin-1")
        try:
            routed = {**scope, "path": path}
            set_call(routed, call)
            await self.app(routed, receive, send_with_id)
        finally:
            milliseconds = (time.perf_counter() - call.started) * 1000
            access_logger.info("%s %s %s %d %.1f ms", call.id, scope["method"], path, status, milliseconds)


async def _unrouted(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 404
    path = request.scope["path"]
    what = f"{request.method} {path}"
    if path.startswith(OPENAI_PREFIX):
        return OpenAIError(status, f"Invalid URL ({what})", "invalid_request_error", code="unknown_url").response()
    if status == 405:
        return error_response(BedrockError("MethodNotAllowedException", f"The method is not allowed: {what}"), {})
    return error_response(BedrockError("UnknownOperationException", f"No operation answers to {what}"), {})


def create_app(models: ModelServer) -> Starlette:
    """The application over `models`, which it closes when it shuts down."""

    gateway = Gateway(models)

    async def health(request: Request) -> Response:
        body = msgspec.json.encode({"status": "ok", "models": models.health()})
        return Response(body, media_type="application/json")

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        try:
            yield
        finally:
            models.close()

    return Starlette(
        routes=[
            *Runtime(gateway).routes(),
            *Control(gateway).routes(),
            *openai_routes(gateway),
            Route("/health", health, methods=["GET"]),
        ],
        middleware=[Middleware(CallMiddleware)],
        exception_handlers={HTTPException: _unrouted},
        lifespan=lifespan,
    )
