"""Pages of other sites, and those that may use a server which asks for no key."""

import pytest
from starlette.requests import Request

from kilonova.core.errors import AccessDenied
from kilonova.serve.origins import refuse_foreign_pages


def request(origin: str | None, host: str = "localhost:8080", server: str = "127.0.0.1") -> Request:
    headers = [(b"host", host.encode())] + ([] if origin is None else [(b"origin", origin.encode())])
    return Request({"type": "http", "headers": headers, "server": (server, 8080)})


@pytest.mark.parametrize(
    ("origin", "host", "server"),
    [
        (None, "anything", "127.0.0.1"),
        ("http://localhost:8080", "localhost:8080", "127.0.0.1"),
        ("http://127.0.0.1:3000", "127.0.0.1:8080", "127.0.0.1"),
        ("http://[::1]:8080", "[::1]:8080", "::1"),
        ("http://models.example:8080", "models.example:8080", "10.0.0.7"),
    ],
)
def test_own_pages_and_other_clients(origin: str | None, host: str, server: str) -> None:
    refuse_foreign_pages(request(origin, host, server))


@pytest.mark.parametrize(
    ("origin", "host", "server"),
    [
        ("https://evil.example", "localhost:8080", "127.0.0.1"),
        ("null", "localhost:8080", "127.0.0.1"),
        ("http://localhost.evil.example:8080", "localhost:8080", "127.0.0.1"),
        ("http://[", "localhost:8080", "127.0.0.1"),
        # A name of another site that now points here.
        ("http://evil.example:8080", "evil.example:8080", "127.0.0.1"),
        ("https://evil.example", "models.example:8080", "10.0.0.7"),
    ],
)
def test_pages_of_other_sites(origin: str, host: str, server: str) -> None:
    with pytest.raises(AccessDenied, match="make one with `kilonova keys create`"):
        refuse_foreign_pages(request(origin, host, server))
