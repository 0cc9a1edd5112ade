"""Core errors as Bedrock's exceptions."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping

import msgspec
from starlette.responses import Response

from kilonova.core.errors import (
    AccessDenied,
    ContextLengthExceeded,
    EngineError,
    InvalidRequest,
    ModelNotFound,
    Overloaded,
    RequestTimeout,
    Throttled,
    Unauthenticated,
    Unavailable,
    UnsuitableModel,
)
from kilonova.serve.bedrock.eventstream import encode_exception
from kilonova.serve.bedrock.shapes import MalformedBody
from kilonova.serve.http import BodyTooLarge, retry_after_header

logger = logging.getLogger(__name__)

# Of exceptions that not every service has in its model.
_STATUSES = {
    "SerializationException": 400,
    "UnknownOperationException": 404,
    "MethodNotAllowedException": 405,
    "ModelTimeoutException": 408,
    "ServiceUnavailableException": 503,
    # Answered before it is known which operation of which service was meant.
    "MissingAuthenticationTokenException": 403,
    "IncompleteSignatureException": 403,
    "InvalidSignatureException": 403,
    "UnrecognizedClientException": 403,
    "AccessDeniedException": 403,
    "ThrottlingException": 429,
    "ValidationException": 400,
    "InternalServerException": 500,
}
# Exceptions that have another name inside a stream.
_IN_STREAM = {"ModelErrorException": "ModelStreamErrorException", "ModelTimeoutException": "ModelStreamErrorException"}


class BedrockError(Exception):
    """An exception of the service under its own name, such as `ResourceNotFoundException`."""

    def __init__(self, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.headers = headers or {}


def to_bedrock_error(error: Exception) -> BedrockError:
    """The service's exception for any error; one that nobody foresaw is logged and hidden from the client."""
    if isinstance(error, BedrockError):
        return error
    if isinstance(error, ModelNotFound):
        return BedrockError("ValidationException", "The provided model identifier is invalid.")
    if isinstance(error, UnsuitableModel):
        message = (
            "This action doesn't support the model that you provided. Try again with a supported text or chat model."
        )
        return BedrockError("ValidationException", message)
    if isinstance(error, ContextLengthExceeded):
        return BedrockError("ValidationException", f"Input is too long for requested model. {_with_field(error)}")
    if isinstance(error, BodyTooLarge):
        return BedrockError(
            "ValidationException",
            f"Input is too long: the payload exceeds {error.limit} bytes. Send less and try again.",
            error.headers,
        )
    if isinstance(error, MalformedBody):
        return BedrockError("SerializationException", str(error))
    if isinstance(error, InvalidRequest):
        return BedrockError("ValidationException", _with_field(error))
    if isinstance(error, Unauthenticated | AccessDenied):
        return BedrockError("AccessDeniedException", str(error))
    if isinstance(error, Throttled):
        return BedrockError("ThrottlingException", str(error), retry_after_header(error))
    if isinstance(error, Overloaded):
        message = f"Too many requests, please wait before trying again. {error}"
        return BedrockError("ThrottlingException", message, retry_after_header(error))
    if isinstance(error, Unavailable):
        return BedrockError("ServiceUnavailableException", str(error), retry_after_header(error))
    if isinstance(error, RequestTimeout):
        return BedrockError("ModelTimeoutException", str(error))
    if isinstance(error, EngineError):
        logger.error("generation failed", exc_info=error)
        return BedrockError(
            "ModelErrorException", f"The request failed due to an error while processing the model. {error}"
        )
    if isinstance(error, RecursionError):
        return BedrockError("ValidationException", "The request is nested too deeply.")
    logger.error("unexpected error", exc_info=error)
    return BedrockError("InternalServerException", "The service failed unexpectedly. Try your call again.")


def _with_field(error: InvalidRequest) -> str:
    message = str(error)
    field = error.field or ""
    is_named = field in message or f"#/{field.replace('.', '/')}:" in message
    return message if is_named else f"{message} ({field})"


def error_response(error: BedrockError, statuses: Mapping[str, int]) -> Response:
    """The HTTP response of an exception; `statuses` are those of the service's own exceptions."""
    status = statuses.get(error.code) or _STATUSES[error.code]
    return Response(
        msgspec.json.encode({"message": error.message}),
        status_code=status,
        media_type="application/json",
        headers={"x-amzn-ErrorType": error.code, **error.headers},
    )


def error_frame(error: BedrockError, exceptions: Collection[str]) -> bytes:
    """The exception as the last frame of a stream that has already begun, where it is one of the stream's own.

    What went wrong with the model is `modelStreamErrorException` otherwise, and anything else an internal error.
    """
    name = error.code[0].lower() + error.code[1:]
    if name not in exceptions:
        name = "modelStreamErrorException" if error.code.startswith("Model") else "internalServerException"
    return encode_exception(name, msgspec.json.encode({"message": error.message}))
