"""What every Bedrock operation shares: errors become the service's, and a client that went needs no answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from kilonova.serve.bedrock.errors import error_response, to_bedrock_error
from kilonova.serve.generation import ClientDisconnected

Handler = Callable[[Request], Awaitable[Response]]

# Nginx's status for a client that closed its connection; it is logged and never sent.
CLIENT_CLOSED_REQUEST = 499


def endpoint(handler: Handler, statuses: Mapping[str, int]) -> Handler:
    """The handler with its errors turned into responses, at the HTTP `statuses` of the service's exceptions."""

    async def handle(request: Request) -> Response:
        try:
            return await handler(request)
        except (ClientDisconnect, ClientDisconnected):
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        except Exception as error:
            return error_response(to_bedrock_error(error), statuses)

    return handle
