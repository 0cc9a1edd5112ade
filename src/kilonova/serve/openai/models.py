"""The OpenAI API's routes: models, chat and plain completions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kilonova.serve.call import Call
from kilonova.serve.gateway import Gateway
from kilonova.serve.openai.chat import ChatCompletions
from kilonova.serve.openai.completions import Completions
from kilonova.serve.openai.errors import endpoint

if TYPE_CHECKING:
    from kilonova.models.registry import ModelEntry


class Models:
    """GET /v1/models and /v1/models/{id} over the models of one server."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    async def list(self, request: Request, call: Call) -> Response:
        """Every model once, under its own name."""
        data = [_to_model(entry) for entry in self.gateway.entries(call)]
        return Response(msgspec.json.encode({"object": "list", "data": data}), media_type="application/json")

    async def retrieve(self, request: Request, call: Call) -> Response:
        """One model, by any of its names."""
        entry = self.gateway.resolve(call, unquote(request.path_params["model_id"]))
        return Response(msgspec.json.encode(_to_model(entry)), media_type="application/json")


def _to_model(entry: ModelEntry) -> dict[str, Any]:
    # As vLLM lists adapters.
    parent = {"parent": entry.base} if entry.base else {}
    return {
        "id": entry.name,
        "object": "model",
        "created": int(entry.created.timestamp()),
        "owned_by": entry.provider,
        **parent,
    }


def routes(gateway: Gateway) -> list[Route]:
    """The API's routes, for raw paths."""
    listing = Models(gateway)
    return [
        Route("/v1/models", endpoint("models", listing.list), methods=["GET"]),
        Route("/v1/models/{model_id:path}", endpoint("models", listing.retrieve), methods=["GET"]),
        Route("/v1/chat/completions", endpoint("chat.completions", ChatCompletions(gateway).create), methods=["POST"]),
        Route("/v1/completions", endpoint("completions", Completions(gateway).create), methods=["POST"]),
    ]
