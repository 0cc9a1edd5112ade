"""Core errors as OpenAI's error bodies."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request
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
from kilonova.serve.call import Call, Protocol, call_of
from kilonova.serve.generation import ClientDisconnected
from kilonova.serve.http import BodyTooLarge, retry_after_header

logger = logging.getLogger(__name__)

T = TypeVar("T")

Handler = Callable[[Request, Call], Awaitable[Response]]
Endpoint = Callable[[Request], Awaitable[Response]]

# Nginx's status for a client that closed its connection; it is logged and never sent.
CLIENT_CLOSED_REQUEST = 499


class OpenAIError(Exception):
    """An error as the API words it: HTTP status, message, type, and the parameter and code where there is one."""

    def __init__(
        self,
        status: int,
        message: str,
        type: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers
        self.body: dict[str, Any] = {"error": {"message": message, "type": type, "param": param, "code": code}}

    @property
    def name(self) -> str:
        """Its code, or else its type."""
        return self.body["error"]["code"] or self.body["error"]["type"]

    def response(self) -> Response:
        """The HTTP response."""
        body = msgspec.json.encode(self.body)
        return Response(body, status_code=self.status, media_type="application/json", headers=self.headers)


def to_openai_error(error: Exception) -> OpenAIError:
    """The API's error for any error; one that nobody foresaw is logged and hidden from the client."""
    invalid = "invalid_request_error"
    if isinstance(error, OpenAIError):
        return error
    if isinstance(error, ModelNotFound):
        return OpenAIError(404, str(error), invalid, param="model", code="model_not_found")
    if isinstance(error, UnsuitableModel):
        return OpenAIError(404, f"This model is not supported in this endpoint: {error}.", invalid, param="model")
    if isinstance(error, ContextLengthExceeded):
        return OpenAIError(400, str(error), invalid, param=_param(error), code="context_length_exceeded")
    if isinstance(error, BodyTooLarge):
        return OpenAIError(
            413,
            f"The request body exceeds the limit of {error.limit} bytes.",
            invalid,
            code="request_too_large",
            headers=error.headers,
        )
    if isinstance(error, InvalidRequest):
        return OpenAIError(400, str(error), invalid, param=_param(error))
    if isinstance(error, Unauthenticated):
        return OpenAIError(401, str(error), invalid, code="invalid_api_key")
    if isinstance(error, AccessDenied):
        return OpenAIError(403, str(error), invalid, code="insufficient_permissions")
    if isinstance(error, Throttled):
        code = "insufficient_quota" if error.retry_after is None else "rate_limit_exceeded"
        return OpenAIError(429, str(error), "rate_limit_error", code=code, headers=retry_after_header(error))
    if isinstance(error, Overloaded):
        headers = retry_after_header(error)
        return OpenAIError(429, str(error), "rate_limit_error", code="rate_limit_exceeded", headers=headers)
    if isinstance(error, Unavailable):
        return OpenAIError(503, str(error), "server_error", code="unavailable", headers=retry_after_header(error))
    if isinstance(error, RequestTimeout):
        return OpenAIError(408, str(error), "server_error", code="request_timeout")
    if isinstance(error, EngineError):
        logger.error("generation failed", exc_info=error)
        return OpenAIError(500, str(error), "server_error")
    if isinstance(error, RecursionError):
        return OpenAIError(400, "The request is nested too deeply.", invalid)
    logger.error("unexpected error", exc_info=error)
    return OpenAIError(500, "The server had an error while processing your request.", "server_error")


def _param(error: InvalidRequest) -> str | None:
    return None if error.field is None else re.sub(r"\.(\d+)", r"[\1]", error.field)


@contextlib.contextmanager
def fields_named(names: Mapping[str, str]) -> Iterator[None]:
    """Lets errors of the core name their fields as the request does: `names` are patterns and what stands for them."""
    try:
        yield
    except InvalidRequest as error:
        for pattern, name in names.items():
            match = re.fullmatch(pattern, error.field or "")
            if match:
                error.field = match.expand(name)
                break
        raise


def decode(decoder: msgspec.json.Decoder[Any], body: bytes) -> Any:
    """A request of the decoder's type; raises InvalidRequest that names the parameter at fault."""
    with _worded():
        return decoder.decode(body)


def convert(fields: Mapping[str, str], kind: type[T]) -> T:
    """A request of the fields of a form, which are texts; raises InvalidRequest as `decode` does."""
    with _worded():
        return msgspec.convert(fields, kind, strict=False)


@contextlib.contextmanager
def _worded() -> Iterator[None]:
    try:
        yield
    except msgspec.ValidationError as error:
        text, _, path = str(error).partition(" - at ")
        path = path.removeprefix("`key` in ").strip("`").removeprefix("$").replace("[...]", "").lstrip(".")
        unknown = re.fullmatch(r"Object contains unknown field `(.+)`", text)
        if unknown:
            path = f"{path}.{unknown[1]}".lstrip(".")
            raise InvalidRequest(f"Unrecognized request argument supplied: {path}", field=path) from None
        missing = re.fullmatch(r"Object missing required field `(.+)`", text)
        if missing:
            path = f"{path}.{missing[1]}".lstrip(".")
            raise InvalidRequest(f"Missing required parameter: '{path}'.", field=path) from None
        message = f"Invalid value for '{path}': {text.lower()}." if path else f"{text}."
        raise InvalidRequest(message, field=path or None) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"We could not parse the JSON body of your request: {error}") from None


def endpoint(operation: str, handler: Handler, *, protocol: Protocol = "openai") -> Endpoint:
    """The handler of an operation with its errors turned into responses; a client that went needs none.

    Other protocols that have errors in this form give their name.
    """

    async def handle(request: Request) -> Response:
        call = call_of(request)
        try:
            call.begin(protocol, operation)
            return await handler(request, call)
        except (ClientDisconnect, ClientDisconnected):
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        except Exception as error:
            answered = to_openai_error(error)
            call.error = answered.name
            return answered.response()

    return handle
