"""Makes a `Call` of each request, and tells whoever wants to know how it ended."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Sequence

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kilonova.serve.call import CLIENT_CLOSED_REQUEST, Call, set_call
from kilonova.serve.lifecycle import Lifecycle

logger = logging.getLogger(__name__)

_TRACE_HEADERS = (b"traceparent", b"tracestate")

CallObserver = Callable[[Call], None]


class CallMiddleware:
    """Makes a `Call` of each request, routes on the path as it was sent, and shows it to `observers` at its end.

    Bedrock's model identifiers may be ARNs, whose slashes are percent-encoded: decoding before routing would split
    them.
    """

    def __init__(self, app: ASGIApp, lifecycle: Lifecycle, observers: Sequence[CallObserver]) -> None:
        self.app = app
        self.lifecycle = lifecycle
        self.observers = observers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["raw_path"].decode("latin-1")
        call = Call(id=str(uuid.uuid4()), started=time.perf_counter(), method=scope["method"], path=path)
        call.trace_headers = {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in scope["headers"]
            if name in _TRACE_HEADERS
        }

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                call.status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-amzn-RequestId"] = call.id
                headers["x-request-id"] = call.id
                headers.update(call.headers)
            await send(message)

        routed = {**scope, "path": path}
        call.receive = receive
        set_call(routed, call)
        self.lifecycle.enter(call)
        try:
            await self.app(routed, receive, send_with_id)
        finally:
            call.status = call.status or CLIENT_CLOSED_REQUEST
            call.is_abandoned = call.is_abandoned or call.status == CLIENT_CLOSED_REQUEST
            if call.failure is not None and not call.error:
                call.error = type(call.failure).__name__
            call.latency = time.perf_counter() - call.started
            self.lifecycle.leave(call)
            for observe in self.observers:
                try:
                    observe(call)
                except Exception:
                    logger.exception("the end of request %s could not be noted", call.id)
