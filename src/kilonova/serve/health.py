"""What a platform asks a server: whether it lives, whether it takes requests, and what it counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kilonova.core.errors import KilonovaError
from kilonova.serve.call import call_of
from kilonova.serve.lifecycle import Lifecycle
from kilonova.serve.models import ModelServer
from kilonova.serve.openai.errors import to_openai_error
from kilonova.serve.telemetry.metrics import CONTENT_TYPE, Metrics

if TYPE_CHECKING:
    from kilonova.serve.keys.authentication import Authenticator

METRICS_OPERATION = "metrics"


class Health:
    """The routes; they ask for no key, except that the metrics need one with the scope `metrics` where keys exist."""

    def __init__(
        self, models: ModelServer, lifecycle: Lifecycle, metrics: Metrics, authenticator: Authenticator | None
    ) -> None:
        self._models = models
        self._lifecycle = lifecycle
        self._metrics = metrics
        self._authenticator = authenticator

    def routes(self) -> list[Route]:
        """The routes."""
        return [
            Route("/health", self.report, methods=["GET"]),
            Route("/health/live", self.live, methods=["GET"]),
            Route("/health/ready", self.ready, methods=["GET"]),
            Route("/metrics", self.metrics, methods=["GET"]),
        ]

    @property
    def status(self) -> str:
        """`ok`, or why the server takes no requests, or not all: `loading`, `stopping` or `restarting`."""
        if self._lifecycle.is_stopping:
            return "stopping"
        if self._lifecycle.is_loading:
            return "loading"
        return "restarting" if self._models.down else "ok"

    async def report(self, request: Request) -> Response:
        """GET /health: 200 with the status, and where no key is needed what each model does."""
        is_open = self._authenticator is None or await self._authenticator.is_open()
        return _json({"status": self.status, **({"models": self._models.health()} if is_open else {})})

    async def live(self, request: Request) -> Response:
        """GET /health/live: 200 as long as the process answers at all."""
        return _json({"status": "ok"})

    async def ready(self, request: Request) -> Response:
        """GET /health/ready: 200 where requests are taken, else 503."""
        return _json({"status": self.status}, 200 if self.status == "ok" else 503)

    async def metrics(self, request: Request) -> Response:
        """GET /metrics: Prometheus's text format."""
        call = call_of(request)
        try:
            call.check_scope(METRICS_OPERATION)
        except KilonovaError as error:
            return to_openai_error(error).response()
        return Response(self._metrics.render(), headers={"content-type": CONTENT_TYPE})


def _json(body: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(body), status_code=status, media_type="application/json")
