"""Which pages a browser sends requests for.

A browser also sends requests on behalf of pages of other sites, to this machine too. Where no key is asked for, such a
page could use the server: by a plain POST, whose answer it does not see, or by pointing its own name at this machine
(DNS rebinding). Browsers name the page's origin in every POST.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from starlette.requests import Request

from kilonova.core.errors import AccessDenied


def is_loopback(host: str) -> bool:
    """Whether an address, or the one name that always means this machine, cannot be reached from others."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def names_this_machine(authority: str) -> bool:
    """Whether the host of `host` or `host:port` is a loopback one."""
    try:
        return is_loopback(urlsplit(f"//{authority}").hostname or "")
    except ValueError:
        return False


def refuse_foreign_pages(request: Request) -> None:
    """For a server that asks for no key: raises AccessDenied for what a page of another site sends.

    Pages of this machine may, under any port; where other machines reach the server, so may its own.
    """
    origin = request.headers.get("origin")
    if origin is None:
        return
    page = origin.partition("://")[2]
    server = request.scope.get("server")
    is_local = server is not None and is_loopback(server[0])
    if names_this_machine(page) or (not is_local and page == request.headers.get("host")):
        return
    raise AccessDenied(
        f"a page of {origin} may not use a server that asks for no key; make one with `kilonova keys create`"
    )
