"""The `bedrock` service's view of the models: foundation models, whether they can be used, and inference profiles."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kilonova.core.errors import AccessDenied, ModelNotFound
from kilonova.serve.bedrock import inference_profiles
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
        self.service = Service(
            "bedrock",
            (
                "ListFoundationModels",
                "GetFoundationModel",
                "GetFoundationModelAvailability",
                "ListInferenceProfiles",
                "GetInferenceProfile",
            ),
        )

    def routes(self) -> list[Route]:
        """The routes, for raw paths."""
        operations = {
            "/foundation-models": ("ListFoundationModels", self.list_foundation_models),
            "/foundation-models/{model_id:path}": ("GetFoundationModel", self.get_foundation_model),
            "/foundation-model-availability/{model_id:path}": (
                "GetFoundationModelAvailability",
                self.get_foundation_model_availability,
            ),
            "/inference-profiles": ("ListInferenceProfiles", self.list_inference_profiles),
            "/inference-profiles/{profile_id:path}": ("GetInferenceProfile", self.get_inference_profile),
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
            raise _not_found("foundation model", identifier) from None
        return Response(
            shapes.write({"modelDetails": _details(entry, _region(request))}), media_type="application/json"
        )

    async def get_foundation_model_availability(self, request: Request, call: Call) -> Response:
        """GET /foundation-model-availability/{modelId}: what is in the registry is available to whoever may use it."""
        shapes = self.service["GetFoundationModelAvailability"]
        identifier = unquote(request.path_params["model_id"])
        authorisation = "AUTHORIZED"
        try:
            self.gateway.resolve(call, identifier)
        except AccessDenied:
            authorisation = "NOT_AUTHORIZED"
        except ModelNotFound:
            shapes.parse(b"", uri={"modelId": identifier})
            raise _not_found("foundation model", identifier) from None
        availability = {
            "modelId": identifier,
            "agreementAvailability": {"status": "AVAILABLE"},
            "authorizationStatus": authorisation,
            "entitlementAvailability": "AVAILABLE",
            "regionAvailability": "AVAILABLE",
        }
        return Response(shapes.write(availability), media_type="application/json")

    async def list_inference_profiles(self, request: Request, call: Call) -> Response:
        """GET /inference-profiles, in pages: one profile a model and a group of regions."""
        shapes = self.service["ListInferenceProfiles"]
        parameters = shapes.parse(b"", query=request.query_params)
        region = _region(request)
        profiles = [
            profile
            for entry in self.gateway.entries(call)
            for profile in inference_profiles.of_entry(entry, region)
            if parameters.get("typeEquals", profile["type"]) == profile["type"]
        ]
        page, token = inference_profiles.paginate(profiles, parameters.get("maxResults"), parameters.get("nextToken"))
        body = shapes.write({"inferenceProfileSummaries": page, "nextToken": token})
        return Response(body, media_type="application/json")

    async def get_inference_profile(self, request: Request, call: Call) -> Response:
        """GET /inference-profiles/{inferenceProfileIdentifier}, by id or ARN."""
        shapes = self.service["GetInferenceProfile"]
        identifier = unquote(request.path_params["profile_id"])
        shapes.parse(b"", uri={"inferenceProfileIdentifier": identifier})
        reference = inference_profiles.parse_identifier(identifier)
        try:
            if reference is None:
                raise ModelNotFound(identifier)
            entry = self.gateway.resolve(call, identifier)
        except ModelNotFound:
            raise _not_found("inference profile", identifier) from None
        profile = inference_profiles.describe(entry, _region(request), *reference)
        return Response(shapes.write(profile), media_type="application/json")


def _not_found(what: str, identifier: str) -> BedrockError:
    message = f"Could not resolve the {what} from the identifier {identifier!r}."
    return BedrockError("ResourceNotFoundException", message)


def _region(request: Request) -> str:
    credential = _CREDENTIAL_REGION.search(request.headers.get("authorization", ""))
    return credential[1] if credential else DEFAULT_REGION


def _details(entry: ModelEntry, region: str) -> dict[str, Any]:
    identifier = entry.bedrock_id
    return {
        "modelArn": inference_profiles.model_arn(entry, region),
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
