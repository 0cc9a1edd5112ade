"""GET /kilonova/usage: what the caller has used, or everyone."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kilonova.core.errors import InvalidRequest
from kilonova.serve.call import Call
from kilonova.serve.database import Database
from kilonova.serve.keys.operations import ALL_USAGE
from kilonova.serve.ledger.usage import parse_dimensions, parse_time, read_usage
from kilonova.serve.openai.errors import endpoint

OWN = "usage"

_PARAMETERS = ("by", "since", "until", "key", "model")
_DEFAULT_SINCE = "30d"


class UsageRoute:
    """The route over one ledger's database.

    Query: `by` (repeatable), `since`, `until`, `model`, `key`. A key sees its own calls, unless `usage.all` is among
    its operations; where the server asks for no key, everything is shown.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def routes(self) -> list[Route]:
        """The route, for raw paths."""
        return [Route("/kilonova/usage", endpoint("", self.get, protocol="console"), methods=["GET"])]

    async def get(self, request: Request, call: Call) -> Response:
        """Rows and their total, as JSON."""
        principal = call.principal
        sees_all = not principal.key_id or ALL_USAGE in (principal.operations or ())
        call.begin("console", ALL_USAGE if principal.key_id and sees_all else OWN)
        query = request.query_params
        for name in query:
            if name not in _PARAMETERS:
                raise InvalidRequest(f"{name}: no such parameter; known: {', '.join(_PARAMETERS)}", field=name)
        now = datetime.now(UTC)
        by = parse_dimensions(query.getlist("by"))
        since = parse_time(query.get("since", _DEFAULT_SINCE), "since", now)
        until = parse_time(query["until"], "until", now) if "until" in query else now
        filters: dict[str, Any] = {
            "since": since,
            "until": until,
            "key": query.get("key"),
            "model": query.get("model"),
            "key_id": None if sees_all else principal.key_id,
        }
        rows = await asyncio.to_thread(read_usage, self._database, by, **filters) if by else []
        (total,) = await asyncio.to_thread(read_usage, self._database, **filters)
        body = {
            "since": since.isoformat(),
            "until": until.isoformat(),
            "by": by,
            "rows": [row.flat() for row in rows],
            "total": total.flat(),
        }
        return Response(msgspec.json.encode(body), media_type="application/json")
