"""The HTTP application: every protocol's routes on raw paths, and what stands before and behind them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response

from kilonova.core.errors import EngineError
from kilonova.serve.bedrock.control import Control
from kilonova.serve.bedrock.errors import BedrockError, error_response
from kilonova.serve.bedrock.runtime import Runtime
from kilonova.serve.console.routes import Console
from kilonova.serve.gateway import Gateway
from kilonova.serve.health import Health
from kilonova.serve.keys.authentication import AuthenticationMiddleware
from kilonova.serve.ledger.routes import UsageRoute
from kilonova.serve.lifecycle import Lifecycle
from kilonova.serve.middleware import CallMiddleware, CallObserver
from kilonova.serve.models import ModelServer
from kilonova.serve.openai.errors import OpenAIError
from kilonova.serve.openai.routes import routes as openai_routes
from kilonova.serve.telemetry.logs import log_call
from kilonova.serve.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from kilonova.serve.database import Database
    from kilonova.serve.keys.authentication import Authenticator
    from kilonova.serve.ledger.ledger import Ledger

OPENAI_PREFIXES = ("/v1/", "/openai/")


async def _unrouted(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 404
    path = request.scope["path"]
    what = f"{request.method} {path}"
    if path.startswith(OPENAI_PREFIXES):
        return OpenAIError(status, f"Invalid URL ({what})", "invalid_request_error", code="unknown_url").response()
    if status == 405:
        return error_response(BedrockError("MethodNotAllowedException", f"The method is not allowed: {what}"), {})
    return error_response(BedrockError("UnknownOperationException", f"No operation answers to {what}"), {})


def create_app(
    models: ModelServer,
    *,
    database: Database | None = None,
    ledger: Ledger | None = None,
    authenticator: Authenticator | None = None,
    lifecycle: Lifecycle | None = None,
    observers: Sequence[CallObserver] = (),
    on_close: Sequence[Callable[[], None]] = (),
) -> Starlette:
    """The application over `models`, which it closes when it shuts down, then `ledger`, and then calls `on_close` in
    order.

    Responses are kept in `database`, which stays open. Without an `authenticator` nobody needs a key. `observers` see
    each call at its end.
    """
    lifecycle = lifecycle or Lifecycle()
    metrics = Metrics(models, lifecycle)
    gateway = Gateway(models, metrics=metrics, ledger=ledger)
    to_ledger = [] if ledger is None else [ledger.close]

    def check_engines() -> None:
        broken = models.check()
        for call in lifecycle.calls if broken else ():
            if call.model in broken:
                call.fail(EngineError("the engine stopped"))

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        metrics.begin()
        watching = asyncio.create_task(lifecycle.watch(metrics.observe_lag, check_engines))
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.to_thread(models.close)
            if ledger is not None:
                await ledger.stop()
            for close in on_close:
                await asyncio.to_thread(close)

    return Starlette(
        routes=[
            *Runtime(gateway).routes(),
            *Control(gateway).routes(),
            *openai_routes(gateway, database),
            *Health(models, lifecycle, metrics, authenticator).routes(),
            *Console(gateway, authenticator=authenticator, prices=None if ledger is None else ledger.prices).routes(),
            *(UsageRoute(ledger.database).routes() if ledger is not None else ()),
        ],
        middleware=[
            Middleware(CallMiddleware, lifecycle, [metrics.observe_call, log_call, *to_ledger, *observers]),
            *(() if authenticator is None else (Middleware(AuthenticationMiddleware, authenticator),)),
        ],
        exception_handlers={HTTPException: _unrouted},
        lifespan=lifespan,
    )
