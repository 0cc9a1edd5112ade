"""The keys in the database: made, listed, revoked.

A key opens the server in three forms: a bearer key as Bedrock's clients send it, one as OpenAI's do, and an access key
id with a secret to sign with. Of the bearer keys the database holds SHA-256 digests. Slow, salted hashes exist because
passwords can be guessed; these hold 256 random bits, which nobody can try, and a request should not wait for them.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy import Column, Dialect, Table
from sqlalchemy.types import TypeDecorator

from kilonova.core.errors import InvalidRequest
from kilonova.core.types import ContextPolicy, ContextStrategy
from kilonova.serve.call import KeyLimits, Principal
from kilonova.serve.database import Database, UTCDateTime, metadata
from kilonova.serve.keys.master import MasterKey

BEDROCK_PREFIX = "ABSK"
OPENAI_PREFIX = "sk-"
ACCESS_KEY_PREFIX = "AKKN"

_BASE32 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_SECRET_BYTES = 32


class DecimalText(TypeDecorator[Decimal]):
    """Exact decimals as text: SQLite would keep them as floating point."""

    impl = sa.String(40)
    cache_ok = True

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> str | None:
        return None if value is None else format(value, "f")

    def process_result_value(self, value: str | None, dialect: Dialect) -> Decimal | None:
        return None if value is None else Decimal(value)


keys = Table(
    "keys",
    metadata,
    Column("id", sa.String(20), primary_key=True),
    Column("name", sa.String(100), nullable=False),
    Column("bedrock_key_hash", sa.String(64), nullable=False, unique=True),
    Column("openai_key_hash", sa.String(64), nullable=False, unique=True),
    Column("master_key_id", sa.String(16), nullable=False),
    Column("models", sa.JSON(none_as_null=True)),
    Column("operations", sa.JSON(none_as_null=True)),
    Column("requests_per_minute", sa.BigInteger),
    Column("tokens_per_minute", sa.BigInteger),
    Column("tokens_per_day", sa.BigInteger),
    Column("budget_usd", DecimalText),
    Column("budget_period", sa.String(5), nullable=False),
    Column("context_strategy", sa.String(32)),
    Column("created_at", UTCDateTime, nullable=False),
    Column("expires_at", UTCDateTime),
    Column("revoked_at", UTCDateTime),
    Column("last_used_at", UTCDateTime),
)

State = Literal["active", "expired", "revoked"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A key without its secrets. `id` is its access key id, which is no secret either."""

    id: str
    name: str
    bedrock_key_hash: str
    openai_key_hash: str
    master_key_id: str
    principal: Principal
    limits: KeyLimits
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None

    def state(self, now: datetime) -> State:
        """Whether it opens anything at `now`."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "active"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Secrets:
    """What a new key opens the server with, known only to whoever made it."""

    bedrock_key: str
    openai_key: str
    access_key_id: str
    secret_access_key: str


class KeyStore:
    """The keys of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(
        self,
        master: MasterKey,
        name: str,
        *,
        models: Collection[str] | None = None,
        operations: Collection[str] | None = None,
        limits: KeyLimits | None = None,
        context_strategy: ContextStrategy | None = None,
        expires_at: datetime | None = None,
    ) -> tuple[Key, Secrets]:
        """A new key, and its secrets, which are not kept."""
        identifier = ACCESS_KEY_PREFIX + "".join(secrets.choice(_BASE32) for _ in range(16))
        opened = Secrets(
            bedrock_key=_bedrock_key(identifier),
            openai_key=OPENAI_PREFIX + secrets.token_urlsafe(_SECRET_BYTES),
            access_key_id=identifier,
            secret_access_key=master.secret_access_key(identifier),
        )
        limits = limits or KeyLimits()
        row = {
            "id": identifier,
            "name": name,
            "bedrock_key_hash": digest(opened.bedrock_key),
            "openai_key_hash": digest(opened.openai_key),
            "master_key_id": master.id,
            "models": None if models is None else sorted(models),
            "operations": None if operations is None else sorted(operations),
            "requests_per_minute": limits.requests_per_minute,
            "tokens_per_minute": limits.tokens_per_minute,
            "tokens_per_day": limits.tokens_per_day,
            "budget_usd": limits.budget_usd,
            "budget_period": limits.budget_period,
            "context_strategy": context_strategy,
            "created_at": datetime.now(UTC),
            "expires_at": expires_at,
            "revoked_at": None,
            "last_used_at": None,
        }
        with self._database.write() as connection:
            connection.execute(keys.insert().values(row))
        return _to_key(row), opened

    def list(self) -> list[Key]:
        """Every key, also those that open nothing any more, oldest first."""
        with self._database.engine.connect() as connection:
            rows = connection.execute(keys.select().order_by(keys.c.created_at, keys.c.id)).mappings().all()
        return [_to_key(row) for row in rows]

    def exists(self) -> bool:
        """Whether any key was ever made."""
        with self._database.engine.connect() as connection:
            return connection.execute(sa.select(sa.literal(1)).select_from(keys).limit(1)).first() is not None

    def version(self) -> tuple[Any, ...]:
        """Something that differs after keys were made or revoked."""
        created, revoked = keys.c.created_at, keys.c.revoked_at
        query = sa.select(*(count(column) for column in (created, revoked) for count in (sa.func.count, sa.func.max)))
        with self._database.engine.connect() as connection:
            return tuple(connection.execute(query.select_from(keys)).one())

    def revoke(self, name_or_id: str) -> Key:
        """Revokes the key with this id, or the one key with this name that is not revoked yet.

        Raises InvalidRequest where there is none, or more than one.
        """
        now = datetime.now(UTC)
        with self._database.write() as connection:
            named = sa.or_(keys.c.id == name_or_id, keys.c.name == name_or_id)
            rows = connection.execute(keys.select().where(named, keys.c.revoked_at.is_(None))).mappings().all()
            rows = [row for row in rows if row["id"] == name_or_id] or rows
            if len(rows) != 1:
                known = connection.execute(sa.select(keys.c.name, keys.c.id).where(keys.c.revoked_at.is_(None))).all()
                raise InvalidRequest(_ambiguous(name_or_id, [row["id"] for row in rows], known))
            connection.execute(keys.update().where(keys.c.id == rows[0]["id"]).values(revoked_at=now))
        return _to_key({**rows[0], "revoked_at": now})

    def note_use(self, times: Mapping[str, datetime]) -> None:
        """Records when keys, by id, were used last."""
        with self._database.write() as connection:
            for identifier, time in times.items():
                connection.execute(keys.update().where(keys.c.id == identifier).values(last_used_at=time))


def digest(bearer_key: str) -> str:
    """What the database holds of a bearer key."""
    return hashlib.sha256(bearer_key.encode()).hexdigest()


def _bedrock_key(identifier: str) -> str:
    # The service's own long-term keys read so: a name, an account and a secret, in base64.
    secret = base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()
    inner = f"BedrockAPIKey-{identifier.lower()}-at-000000000000:{secret}"
    return BEDROCK_PREFIX + base64.b64encode(inner.encode()).decode()


def _to_key(row: Mapping[Any, Any]) -> Key:
    limits = KeyLimits(
        requests_per_minute=row["requests_per_minute"],
        tokens_per_minute=row["tokens_per_minute"],
        tokens_per_day=row["tokens_per_day"],
        budget_usd=row["budget_usd"],
        budget_period=row["budget_period"],
    )
    unlimited = limits == KeyLimits(budget_period=limits.budget_period)
    return Key(
        id=row["id"],
        name=row["name"],
        bedrock_key_hash=row["bedrock_key_hash"],
        openai_key_hash=row["openai_key_hash"],
        master_key_id=row["master_key_id"],
        principal=Principal(
            key_id=row["id"],
            name=row["name"],
            models=None if row["models"] is None else frozenset(row["models"]),
            operations=None if row["operations"] is None else frozenset(row["operations"]),
            limits=None if unlimited else limits,
            context=ContextPolicy(strategy=row["context_strategy"]) if row["context_strategy"] else None,
        ),
        limits=limits,
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        revoked_at=row["revoked_at"],
        last_used_at=row["last_used_at"],
    )


def _ambiguous(wanted: str, matches: Collection[str], known: Iterable[Any]) -> str:
    if matches:
        return f"several keys are called {wanted!r}; name one by its id: {', '.join(sorted(matches))}"
    listed = ", ".join(f"{row.name} ({row.id})" for row in known) or "none"
    return f"there is no key {wanted!r} that could be revoked; known: {listed}"
