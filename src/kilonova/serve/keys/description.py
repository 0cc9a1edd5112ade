"""Keys as people name and read them, on the command line and in the console alike."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from kilonova.core.errors import InvalidRequest
from kilonova.serve.keys.store import Key, Secrets

MAX_NAME = 100


def check_name(name: str) -> str:
    """The name of a key without space around it; raises InvalidRequest for one that nobody could read."""
    name = name.strip()
    if not name or len(name) > MAX_NAME or not name.isprintable():
        raise InvalidRequest(f"the name of a key has between 1 and {MAX_NAME} printable characters", field="name")
    return name


def parse_budget(text: str) -> Decimal:
    """An amount of dollars, to a millionth; raises InvalidRequest for anything else."""
    try:
        dollars = Decimal(text)
    except InvalidOperation:
        dollars = Decimal("NaN")
    if not dollars.is_finite() or not 0 < dollars < 10**12 or dollars != round(dollars, 6):
        message = f"{text!r} is no budget: an amount of dollars above 0 is expected, such as 20 or 0.50"
        raise InvalidRequest(message, field="budget_usd")
    return dollars


def describe(key: Key, now: datetime) -> dict[str, Any]:
    """A key without its secrets, in JSON's types; times are in ISO 8601."""
    limits, principal = key.limits, key.principal
    return {
        "id": key.id,
        "name": key.name,
        "state": key.state(now),
        "models": None if principal.models is None else sorted(principal.models),
        "operations": None if principal.operations is None else sorted(principal.operations),
        "requests_per_minute": limits.requests_per_minute,
        "tokens_per_minute": limits.tokens_per_minute,
        "tokens_per_day": limits.tokens_per_day,
        "budget_usd": None if limits.budget_usd is None else format(limits.budget_usd, "f"),
        "budget_period": limits.budget_period,
        "context_strategy": "none" if principal.context is None else principal.context.strategy,
        "created_at": _iso(key.created_at),
        "expires_at": _iso(key.expires_at),
        "revoked_at": _iso(key.revoked_at),
        "last_used_at": _iso(key.last_used_at),
    }


def describe_secrets(secrets: Secrets) -> dict[str, str]:
    """A new key in all its forms."""
    return {
        "bedrock_key": secrets.bedrock_key,
        "openai_key": secrets.openai_key,
        "access_key_id": secrets.access_key_id,
        "secret_access_key": secrets.secret_access_key,
    }


def _iso(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat(timespec="seconds")
