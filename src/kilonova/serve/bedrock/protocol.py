"""What every Bedrock operation shares: errors become the service's, and a client that went needs no answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from kilonova.serve.bedrock.errors import error_response, to_bedrock_error
from kilonova.serve.call import Call, call_of
from kilonova.serve.generation import ClientDisconnected

Handler = Callable[[Request, Call], Awaitable[Response]]
Endpoint = Callable[[Request], Awaitable[Response]]

# Nginx's status for a client that closed its connection; it is logged and never sent.
CLIENT_CLOSED_REQUEST = 499


def endpoint(operation: str, handler: Handler, statuses: Mapping[str, int]) -> Endpoint:
    """The handler of an operation, its errors turned into responses at the `statuses` of the service's exceptions."""

    async def handle(request: Request) -> Response:
        call = call_of(request)
        try:
            call.begin("bedrock", operation)
            return await handler(request, call)
        except (ClientDisconnect, ClientDisconnected):
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        except Exception as error:
            answered = to_bedrock_error(error)
            call.error = answered.code
            return error_response(answered, statuses)

    return handle
