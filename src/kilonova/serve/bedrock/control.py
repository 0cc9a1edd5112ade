"""The `bedrock` service's view of the models: ListFoundationModels and GetFoundationModel."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kilonova.core.errors import ModelNotFound
from kilonova.serve.bedrock.errors import BedrockError
from kilonova.serve.bedrock.protocol import endpoint
from kilonova.serve.bedrock.shapes import Service
from kilonova.serve.call import Call
from kilonova.serve.gateway import Gateway

if TYPE_CHECKING:
    from kilonova.models.registry import ModelEntry

DEFAULT_REGION = "us-east-1"

_CREDENTIAL_REGION = re.compile(r"Credential=[^/,]+/\d{8}/([a-z0-9-]+)/")


class Control:
    """The operations over the models of one server."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.service = Service("bedrock", ("ListFoundationModels", "GetFoundationModel"))

    def routes(self) -> list[Route]:
        """The routes, for raw paths."""
        operations = {
            "/foundation-models": ("ListFoundationModels", self.list_foundation_models),
            "/foundation-models/{model_id:path}": ("GetFoundationModel", self.get_foundation_model),
        }
        return [
            Route(path, endpoint(name, handler, self.service.statuses), methods=["GET"])
            for path, (name, handler) in operations.items()
        ]

    async def list_foundation_models(self, request: Request, call: Call) -> Response:
        """GET /foundation-models, with its four filters."""
        shapes = self.service["ListFoundationModels"]
        filters = shapes.parse(b"", query=request.query_params)
        wanted = {
            "customizationsSupported": filters.get("byCustomizationType"),
            "outputModalities": filters.get("byOutputModality"),
            "inferenceTypesSupported": filters.get("byInferenceType"),
        }
        provider = filters.get("byProvider")
        summaries = [
            summary
            for summary in (_details(entry, _region(request)) for entry in self.gateway.entries(call))
            if (provider is None or summary["providerName"].lower() == provider.lower())
            and all(value is None or value in summary[member] for member, value in wanted.items())
        ]
        return Response(shapes.write({"modelSummaries": summaries}), media_type="application/json")

    async def get_foundation_model(self, request: Request, call: Call) -> Response:
        """GET /foundation-models/{modelIdentifier}."""
        shapes = self.service["GetFoundationModel"]
        identifier = unquote(request.path_params["model_id"])
        try:
            entry = self.gateway.resolve(call, identifier)
        except ModelNotFound:
            shapes.parse(b"", uri={"modelIdentifier": identifier})
            message = f"Could not resolve the foundation model from the identifier {identifier!r}."
            raise BedrockError("ResourceNotFoundException", message) from None
        return Response(
            shapes.write({"modelDetails": _details(entry, _region(request))}), media_type="application/json"
        )


def _region(request: Request) -> str:
    credential = _CREDENTIAL_REGION.search(request.headers.get("authorization", ""))
    return credential[1] if credential else DEFAULT_REGION


def _details(entry: ModelEntry, region: str) -> dict[str, Any]:
    identifier = entry.bedrock_id
    return {
        "modelArn": f"arn:aws:bedrock:{region}::foundation-model/{identifier}",
        "modelId": identifier,
        "modelName": entry.display_name,
        "providerName": entry.provider,
        "inputModalities": [modality.upper() for modality in entry.input_modalities],
        "outputModalities": [modality.upper() for modality in entry.output_modalities],
        "responseStreamingSupported": "text" in entry.output_modalities,
        "customizationsSupported": [],
        "inferenceTypesSupported": ["ON_DEMAND"],
        "modelLifecycle": {"status": "ACTIVE"},
    }
