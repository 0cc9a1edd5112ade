"""A store of keys in a fresh database, and an application that only says whose a request is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kilonova.serve.call import call_of
from kilonova.serve.database import Database, default_url
from kilonova.serve.http import read_body
from kilonova.serve.keys.authentication import AuthenticationMiddleware, Authenticator
from kilonova.serve.keys.master import MasterKey
from kilonova.serve.keys.store import KeyStore
from kilonova.serve.lifecycle import Lifecycle
from kilonova.serve.middleware import CallMiddleware


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(default_url(tmp_path))
    opened.migrate()
    yield opened
    opened.close()


@pytest.fixture
def store(database: Database) -> KeyStore:
    return KeyStore(database)


@pytest.fixture
def master(tmp_path: Path) -> MasterKey:
    return MasterKey.open(tmp_path / "master.key")


@pytest.fixture
def authenticator(store: KeyStore, master: MasterKey) -> Authenticator:
    return Authenticator(store, master, open_without_keys=True)


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: Any

    @property
    def code(self) -> str:
        """The error's name, in either protocol."""
        return self.headers.get("x-amzn-errortype") or self.body["error"]["code"]


Ask = Callable[..., Answer]


async def _whose(request: Request) -> Response:
    body = await read_body(request)
    principal = call_of(request).principal
    said = {"key_id": principal.key_id, "name": principal.name, "body": body.decode()}
    return Response(json.dumps(said), media_type="application/json")


@pytest.fixture
def ask(authenticator: Authenticator) -> Iterator[Ask]:
    """Sends a request to the application: method, URL path, headers, body."""
    app = Starlette(
        routes=[Route("/{path:path}", _whose, methods=["GET", "POST"])],
        middleware=[
            Middleware(CallMiddleware, Lifecycle(), []),
            Middleware(AuthenticationMiddleware, authenticator),
        ],
    )
    # As a server has it: what waits for the database belongs to one event loop.
    with asyncio.Runner() as runner:

        def send(method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes = b"") -> Answer:
            return runner.run(_send(app, method, path, headers or {}, body))

        yield send


async def _send(app: Starlette, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
    raw_path, _, query = path.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": raw_path,
        "raw_path": raw_path.encode(),
        "root_path": "",
        "query_string": query.encode(),
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8080),
    }
    parts = [body[: len(body) // 2], body[len(body) // 2 :]]
    sent: list[Any] = []

    async def receive() -> Any:
        if not parts:
            await asyncio.sleep(3600)
        part = parts.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(parts)}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    start = sent[0]
    text = b"".join(message.get("body", b"") for message in sent[1:])
    answered = {name.decode().lower(): value.decode() for name, value in start["headers"]}
    return Answer(start["status"], answered, json.loads(text))
