"""Responses that are kept: each belongs to the key that made it, and goes after thirty days."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import sqlalchemy as sa

from kilonova.serve.database import UTCDateTime, metadata

if TYPE_CHECKING:
    from kilonova.serve.database import Database

LIFETIME = timedelta(days=30)
_SWEEP_EVERY = timedelta(hours=1)

# `body` is the response and `input` the items of its own request, both as JSON.
responses = sa.Table(
    "responses",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("key_id", sa.String(64), nullable=False),
    sa.Column("previous_response_id", sa.String(64), nullable=True),
    sa.Column("created_at", UTCDateTime, nullable=False),
    sa.Column("expires_at", UTCDateTime, nullable=False),
    sa.Column("input", sa.Text, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Index("ix_responses_expires_at", "expires_at"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredResponse:
    """A response, the items of its own request, and the response it goes on from."""

    body: dict[str, Any]
    input: list[dict[str, Any]]
    previous_response_id: str | None


class ResponseStore:
    """The responses in a database. Calls block, so they belong on a thread."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._swept = datetime.min.replace(tzinfo=UTC)

    def save(self, key_id: str, response: StoredResponse) -> None:
        """Keeps a response; those that have expired are deleted, at most once an hour."""
        now = datetime.now(UTC)
        row = {
            "id": response.body["id"],
            "key_id": key_id,
            "previous_response_id": response.previous_response_id,
            "created_at": now,
            "expires_at": now + LIFETIME,
            "input": msgspec.json.encode(response.input).decode(),
            "body": msgspec.json.encode(response.body).decode(),
        }
        with self._database.write() as connection:
            if now - self._swept > _SWEEP_EVERY:
                connection.execute(sa.delete(responses).where(responses.c.expires_at <= now))
                self._swept = now
            connection.execute(sa.insert(responses).values(row))

    def get(self, key_id: str, response_id: str) -> StoredResponse | None:
        """A response of this key."""
        with self._database.engine.connect() as connection:
            row = connection.execute(sa.select(responses).where(_is(key_id, response_id))).first()
        return None if row is None else _from_row(row)

    def history(self, key_id: str, response_id: str) -> list[StoredResponse]:
        """A response and those before it, oldest first; only from the first that is missing on."""
        earlier = (
            sa.select(responses, sa.literal(0).label("depth"))
            .where(_is(key_id, response_id))
            .cte("earlier", recursive=True)
        )
        before = (
            sa.select(responses, (earlier.c.depth + 1).label("depth"))
            .join(earlier, responses.c.id == earlier.c.previous_response_id)
            .where(responses.c.key_id == key_id, responses.c.expires_at > datetime.now(UTC))
        )
        chain = earlier.union_all(before)
        with self._database.engine.connect() as connection:
            rows: Sequence[Any] = connection.execute(sa.select(chain).order_by(chain.c.depth.desc())).all()
        return [_from_row(row) for row in rows]

    def delete(self, key_id: str, response_id: str) -> bool:
        """Deletes a response of this key; whether there was one."""
        with self._database.write() as connection:
            return connection.execute(sa.delete(responses).where(_is(key_id, response_id))).rowcount > 0


def _is(key_id: str, response_id: str) -> sa.ColumnElement[bool]:
    return sa.and_(
        responses.c.id == response_id, responses.c.key_id == key_id, responses.c.expires_at > datetime.now(UTC)
    )


def _from_row(row: Any) -> StoredResponse:
    return StoredResponse(
        body=msgspec.json.decode(row.body),
        input=msgspec.json.decode(row.input),
        previous_response_id=row.previous_response_id,
    )
