"""Who may manage keys from the console, and that it is the console which asks.

What changes keys needs a header that no other site's page can send, and an origin that is the server's own. Where no
key is asked for, a site could still point its own name at this machine: then the request's host is that name.
"""

from __future__ import annotations

from starlette.requests import Request

from kilonova.core.errors import AccessDenied
from kilonova.serve.call import Principal
from kilonova.serve.origins import is_loopback, names_this_machine

HEADER = "x-kilonova-console"
_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")


def check_own_page(request: Request) -> None:
    """Raises AccessDenied for a request that another site's page may have caused."""
    headers = request.headers
    origin = headers.get("origin")
    if (
        HEADER not in headers
        or headers.get("sec-fetch-site", "same-origin") != "same-origin"
        or (origin is not None and origin.partition("://")[2] != headers.get("host"))
    ):
        raise AccessDenied(f"keys are managed from the console's own page, with the header {HEADER}")


def may_manage_keys(request: Request, principal: Principal, *, is_open: bool) -> bool:
    """Whether the caller holds a key that says so by name, or sits at the machine of a server that asks for none."""
    if principal.key_id:
        return "keys.manage" in (principal.operations or ())
    return is_open and _is_local(request)


def _is_local(request: Request) -> bool:
    client, server = request.scope.get("client"), request.scope.get("server")
    return (
        client is not None
        and server is not None
        and is_loopback(client[0])
        and is_loopback(server[0])
        and names_this_machine(request.headers.get("host", ""))
        and not any(name in request.headers for name in _FORWARDED)
    )
