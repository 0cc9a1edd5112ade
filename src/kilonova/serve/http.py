"""What protocols share of HTTP: bodies read with a limit, and when to come back."""

from __future__ import annotations

import math

from starlette.requests import Request

from kilonova.core.errors import KilonovaError, Overloaded, Throttled, Unavailable
from kilonova.serve.call import call_of

# What a client may go on sending before it reads its refusal; beyond it the connection is closed on it.
_MAX_DRAINED_BYTES = 100_000_000


class BodyTooLarge(KilonovaError):
    """A request's body is longer than `limit` bytes; `unread` says that its client has not sent all of it."""

    def __init__(self, limit: int, *, unread: bool = False) -> None:
        super().__init__(f"the request body exceeds {limit} bytes")
        self.limit = limit
        self.headers = {"connection": "close"} if unread else {}


def retry_after_header(error: Throttled | Overloaded | Unavailable) -> dict[str, str]:
    """The `Retry-After` of an error, in whole seconds; empty where waiting does not help."""
    return {} if error.retry_after is None else {"retry-after": str(math.ceil(error.retry_after))}


async def read_body(request: Request) -> bytes:
    """The whole body; raises BodyTooLarge after throwing away what the client still sends.

    Clients write their whole body before they read, so an answer given earlier would reach them as a broken
    connection. A client that asked with `Expect: 100-continue` gets its refusal before it sends anything.
    """
    call = call_of(request)
    limit = call.max_body_bytes
    declared = request.headers.get("content-length", "")
    too_large = declared.isdigit() and int(declared) > limit
    if too_large and (
        int(declared) > _MAX_DRAINED_BYTES or request.headers.get("expect", "").lower() == "100-continue"
    ):
        raise BodyTooLarge(limit, unread=True)
    chunks: list[bytes] = []
    received = 0
    async with call.interruptible(call.receive_seconds):
        async for chunk in request.stream():
            received += len(chunk)
            if received > limit:
                too_large = True
            if too_large:
                chunks.clear()
                if received > _MAX_DRAINED_BYTES:
                    raise BodyTooLarge(limit, unread=True)
            else:
                chunks.append(chunk)
    if too_large:
        raise BodyTooLarge(limit)
    return b"".join(chunks)
