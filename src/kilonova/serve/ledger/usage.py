"""What was used: totals of the ledger by day, key, model and more."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal, get_args

import sqlalchemy as sa

from kilonova.core.errors import InvalidRequest, nearest
from kilonova.serve.database import Database
from kilonova.serve.ledger.prices import to_dollars
from kilonova.serve.ledger.tables import calls

Dimension = Literal["hour", "day", "key", "model", "operation", "status"]
DIMENSIONS: tuple[Dimension, ...] = get_args(Dimension)

_HOUR = 3_600_000
_PERCENTILES = {"time_to_first_token_p50": 50, "time_to_first_token_p95": 95}
_TOKENS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "images", "video_seconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Totals of calls. `group` has a value for each dimension asked for; of keys it holds ids, and `key_name` the name.

    `requests` are all calls; those `refused`, `failed` (the model or the server), `cancelled` (by the client) and
    `lost` (their server died) are among them. `price` is in US dollars, exact. Times to the first token are in seconds,
    None without any.
    """

    group: dict[str, str]
    key_name: str = ""
    requests: int = 0
    running: int = 0
    refused: int = 0
    failed: int = 0
    cancelled: int = 0
    lost: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    images: int = 0
    video_seconds: int = 0
    price: Decimal = Decimal(0)
    time_to_first_token_p50: float | None = None
    time_to_first_token_p95: float | None = None

    def flat(self) -> dict[str, Any]:
        """One level of strings and numbers, for JSON and CSV; the price is text, which keeps it exact."""
        values = asdict(self)
        values["price_usd"] = format(values.pop("price"), "f")
        named = {"key_name": values.pop("key_name")} if "key" in self.group else {}
        values.pop("key_name", None)
        return {**values.pop("group"), **named, **values}


def read_usage(
    database: Database,
    by: Sequence[Dimension] = (),
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    key: str | None = None,
    key_id: str | None = None,
    model: str | None = None,
) -> list[Usage]:
    """Totals of the calls that started from `since` until before `until`, by `by`, in the order of its values.

    `key` is an id or a name, `key_id` an id. Without `by` there is one row, also where there are no calls.
    """
    conditions = []
    if since is not None:
        conditions.append(calls.c.started_at >= _milliseconds(since))
    if until is not None:
        conditions.append(calls.c.started_at < _milliseconds(until))
    if key is not None:
        conditions.append(sa.or_(calls.c.key_id == key, calls.c.key_name == key))
    if key_id is not None:
        conditions.append(calls.c.key_id == key_id)
    if model is not None:
        conditions.append(calls.c.model == model)
    groups = [_group(each).label(f"by_{each}") for each in by]
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    with database.engine.connect() as connection:
        for row in connection.execute(_totals(groups, conditions)).mappings():
            values = dict(row)
            rows[tuple(values.pop(group.name) for group in groups)] = values
        for row in connection.execute(_percentiles(groups, conditions)).mappings():
            values = dict(row)
            # A group may have come between the two queries.
            rows.get(tuple(values.pop(group.name) for group in groups), {}).update(values)
    return [_to_usage(by, group, rows[group]) for group in sorted(rows)]


def parse_dimensions(names: Sequence[str]) -> list[Dimension]:
    """The dimensions of the given names, in order. Raises InvalidRequest."""
    for name in names:
        if name not in DIMENSIONS:
            raise InvalidRequest(f"by: {name!r} is not known: {nearest(name, DIMENSIONS)}", field="by")
    return [name for name in DIMENSIONS if name in names]


def parse_time(text: str, field: str, now: datetime) -> datetime:
    """A day or a time in ISO 8601, UTC unless it tells, or how long before `now`, as `7d` or `24h`.

    Raises InvalidRequest.
    """
    if ago := re.fullmatch(r"(\d{1,5})([hd])", text):
        return now - (timedelta(hours=int(ago[1])) if ago[2] == "h" else timedelta(days=int(ago[1])))
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidRequest(
            f"{field}: {text!r} is not a time; write 2026-11-30, 2026-11-30T12:00, or 7d or 24h ago", field=field
        ) from None
    return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def _group(dimension: Dimension) -> sa.ColumnElement[Any]:
    """Days, and hours, are numbers since 1970: databases write dates differently."""
    if dimension in ("hour", "day"):
        return calls.c.started_at // sa.literal_column(str(_HOUR if dimension == "hour" else 24 * _HOUR))
    return {
        "key": calls.c.key_id,
        "model": calls.c.model,
        "operation": calls.c.operation,
        "status": calls.c.status,
    }[dimension]


def _totals(groups: Sequence[sa.Label[Any]], conditions: Sequence[sa.ColumnElement[bool]]) -> sa.Select[Any]:
    statuses = ("running", "refused", "failed", "cancelled", "lost")
    counts = [sa.func.count().filter(calls.c.status == status).label(status) for status in statuses]
    sums = [sa.func.coalesce(sa.func.sum(calls.c[name]), 0).label(name) for name in (*_TOKENS, "price")]
    name = sa.func.coalesce(sa.func.max(calls.c.key_name), "").label("key_name")
    columns = [*groups, name, sa.func.count().label("requests"), *counts, *sums]
    return sa.select(*columns).where(*conditions).group_by(*groups)


def _percentiles(groups: Sequence[sa.Label[Any]], conditions: Sequence[sa.ColumnElement[bool]]) -> sa.Select[Any]:
    """By nearest rank, which every database can do: the least value that so many of a hundred do not exceed."""
    waited = calls.c.time_to_first_token
    order = sa.func.row_number().over(partition_by=list(groups) or None, order_by=waited).label("place")
    count = sa.func.count().over(partition_by=list(groups) or None).label("count")
    ranked = sa.select(*groups, waited.label("waited"), order, count).where(waited.is_not(None), *conditions).subquery()
    chosen = [
        sa.func.max(
            sa.case((ranked.c.place == (ranked.c.count * percent + 99) // sa.literal_column("100"), ranked.c.waited))
        ).label(name)
        for name, percent in _PERCENTILES.items()
    ]
    names = [ranked.c[group.name] for group in groups]
    return sa.select(*names, *chosen).group_by(*names)


def _to_usage(by: Sequence[Dimension], group: Sequence[Any], values: dict[str, Any]) -> Usage:
    price = to_dollars(int(values.pop("price")))
    known = {field.name for field in fields(Usage)}
    numbers: dict[str, Any] = {
        name: int(value) if name in _TOKENS else value for name, value in values.items() if name in known
    }
    return Usage(
        group={name: _label(name, value) for name, value in zip(by, group, strict=True)}, price=price, **numbers
    )


def _label(dimension: Dimension, value: Any) -> str:
    if dimension == "day":
        return datetime.fromtimestamp(value * 86_400, UTC).date().isoformat()
    if dimension == "hour":
        return datetime.fromtimestamp(value * 3600, UTC).strftime("%Y-%m-%dT%H:00Z")
    return value
