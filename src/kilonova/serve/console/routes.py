"""What the console asks of the server beside the protocols: what there is, and keys."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import kilonova
from kilonova.core.errors import AccessDenied
from kilonova.serve.call import Call
from kilonova.serve.console.access import check_own_page, may_manage_keys
from kilonova.serve.console.pages import Pages
from kilonova.serve.console.wire import NewKey, describe_model
from kilonova.serve.gateway import Gateway
from kilonova.serve.http import read_body
from kilonova.serve.keys.description import check_name, describe, describe_secrets
from kilonova.serve.keys.operations import GROUPS, MANAGE_KEYS, OPERATIONS
from kilonova.serve.ledger.prices import PriceBook
from kilonova.serve.openai.errors import OpenAIError, decode, endpoint

if TYPE_CHECKING:
    from kilonova.models.registry import ModelEntry
    from kilonova.serve.keys.authentication import Authenticator

_decoder = msgspec.json.Decoder(NewKey)
# Without an operation, for every caller that is known.
_endpoint = partial(endpoint, protocol="console")


class Console:
    """The page at `/` over one server's models; without an `authenticator` the server has no keys."""

    def __init__(
        self, gateway: Gateway, *, authenticator: Authenticator | None = None, prices: PriceBook | None = None
    ) -> None:
        self.gateway = gateway
        self._authenticator = authenticator
        self._prices = prices or PriceBook()

    def routes(self) -> list[Route]:
        """The page's routes and its own API's, for raw paths."""
        return [
            *Pages().routes(),
            Route("/kilonova/info", _endpoint("", self.info), methods=["GET"]),
            Route("/kilonova/keys", _endpoint(MANAGE_KEYS, self.list_keys), methods=["GET"]),
            Route("/kilonova/keys", _endpoint(MANAGE_KEYS, self.create_key), methods=["POST"]),
            Route("/kilonova/keys/{key_id}", _endpoint(MANAGE_KEYS, self.revoke_key), methods=["DELETE"]),
        ]

    async def info(self, request: Request, call: Call) -> Response:
        """GET /kilonova/info: the models the caller may use with their prices, and what else it may do."""
        is_open = await self._is_open()
        principal = call.principal
        manages_keys = self._authenticator is not None and may_manage_keys(request, principal, is_open=is_open)
        return _json(
            {
                "version": kilonova.__version__,
                "open": is_open,
                "key": {"id": principal.key_id, "name": principal.name} if principal.key_id else None,
                "manages_keys": manages_keys,
                "operations": {"groups": GROUPS, "all": OPERATIONS} if manages_keys else None,
                "models": [self._describe(entry) for entry in self.gateway.entries(call)],
            }
        )

    async def list_keys(self, request: Request, call: Call) -> Response:
        """GET /kilonova/keys: every key, oldest first, without its secrets."""
        authenticator = await self._check_access(request, call)
        now = datetime.now(UTC)
        keys = await asyncio.to_thread(authenticator.store.list)
        return _json({"keys": [describe(key, now) for key in keys]})

    async def create_key(self, request: Request, call: Call) -> Response:
        """POST /kilonova/keys: a new key and its secrets, which are shown this once."""
        authenticator = await self._check_access(request, call)
        body: NewKey = decode(_decoder, await read_body(request))
        models = None if body.models is None else [self.gateway.models.resolve(name).name for name in body.models]
        key, secrets = await asyncio.to_thread(
            authenticator.store.create,
            authenticator.master,
            check_name(body.name),
            models=models,
            operations=body.checked_operations(),
            limits=body.limits(),
            expires_at=body.expiry(datetime.now(UTC)),
        )
        await asyncio.to_thread(authenticator.ring.refresh)
        return _json({**describe(key, datetime.now(UTC)), "secrets": describe_secrets(secrets)}, status=201)

    async def revoke_key(self, request: Request, call: Call) -> Response:
        """DELETE /kilonova/keys/{id}."""
        authenticator = await self._check_access(request, call)
        key_id = request.path_params["key_id"]
        known = {key.id: key for key in await asyncio.to_thread(authenticator.store.list)}
        if key_id not in known:
            raise OpenAIError(404, "There is no such key.", "invalid_request_error", param="key_id", code="not_found")
        if known[key_id].revoked_at is None:
            await asyncio.to_thread(authenticator.store.revoke, key_id)
            await asyncio.to_thread(authenticator.ring.refresh)
        return Response(status_code=204)

    async def _is_open(self) -> bool:
        return self._authenticator is None or await self._authenticator.is_open()

    async def _check_access(self, request: Request, call: Call) -> Authenticator:
        check_own_page(request)
        if self._authenticator is None or not may_manage_keys(request, call.principal, is_open=await self._is_open()):
            raise AccessDenied("managing keys takes a key with the operation keys.manage")
        return self._authenticator

    def _describe(self, entry: ModelEntry) -> dict[str, Any]:
        base = self.gateway.models.resolve(entry.base) if entry.base else None
        return describe_model(entry, *self._prices.find(entry, base))


def _json(value: Any, status: int = 200) -> Response:
    # Secrets and usage are for nobody's cache.
    headers = {"cache-control": "no-store"}
    return Response(msgspec.json.encode(value), status_code=status, media_type="application/json", headers=headers)
