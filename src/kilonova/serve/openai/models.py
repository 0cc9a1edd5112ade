"""GET /v1/models and /v1/models/{id}."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from kilonova.serve.call import Call
from kilonova.serve.gateway import Gateway
from kilonova.serve.openai.errors import OpenAIError

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

    async def embeddings(self, request: Request, call: Call) -> Response:
        """Refused, as no model here makes embeddings; the error tells what there is."""
        names = ", ".join(entry.name for entry in self.gateway.entries(call) if not entry.makes_pictures)
        raise OpenAIError(
            404,
            "There is no embedding model here. "
            f"Models for chat completions, completions and responses: {names or 'none'}.",
            "invalid_request_error",
            param="model",
            code="model_not_found",
        )


def _to_model(entry: ModelEntry) -> dict[str, Any]:
    # As vLLM lists adapters and lengths.
    parent = {"parent": entry.base} if entry.base else {}
    length = {"max_model_len": entry.context_length} if entry.context_length else {}
    return {
        "id": entry.name,
        "object": "model",
        "created": int(entry.created.timestamp()),
        "owned_by": entry.provider,
        # As OpenRouter lists them.
        "architecture": {
            "input_modalities": entry.input_modalities,
            "output_modalities": entry.output_modalities,
        },
        **length,
        **parent,
    }
