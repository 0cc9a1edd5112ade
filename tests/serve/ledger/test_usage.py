from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from tests.serve.ledger.conftest import make_row

from kilonova.core.errors import InvalidRequest
from kilonova.serve.database import Database
from kilonova.serve.ledger.tables import calls
from kilonova.serve.ledger.usage import parse_dimensions, parse_time, read_usage

DAY = datetime(2026, 11, 30, tzinfo=UTC)


def at(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def fill(database: Database) -> None:
    rows: list[dict[str, Any]] = []
    for index in range(20):
        waited = {"time_to_first_token": (index + 1) / 100, "latency": 1.0}
        tokens = {"input_tokens": 10, "output_tokens": index, "cache_read_tokens": 3, "cache_write_tokens": 1}
        key = {"key_id": "A", "key_name": "alpha"} if index % 2 else {"key_id": "B", "key_name": "beta"}
        moment = DAY + timedelta(minutes=72 * index)
        rows.append(
            make_row(f"today {index}", status="finished", price=7, started_at=at(moment), **waited, **tokens, **key)
        )
    for status in ("refused", "failed", "cancelled", "lost", "running"):
        moment = DAY - timedelta(milliseconds=1)
        rows.append(make_row(f"yesterday {status}", status=status, started_at=at(moment), model="lite", images=2))
    with database.write() as connection:
        connection.execute(calls.insert(), rows)


def test_totals_and_percentiles(any_database: Database) -> None:
    fill(any_database)
    yesterday, today = read_usage(any_database, ["day"])
    assert (yesterday.group, today.group) == ({"day": "2026-11-29"}, {"day": "2026-11-30"})
    assert (today.requests, today.input_tokens, today.output_tokens) == (20, 200, sum(range(20)))
    assert (today.cache_read_tokens, today.cache_write_tokens) == (60, 20)
    assert today.price == Decimal(140) / 10**12
    # By nearest rank: the tenth and the nineteenth of twenty.
    assert (today.time_to_first_token_p50, today.time_to_first_token_p95) == (0.10, 0.19)
    counts = (yesterday.refused, yesterday.failed, yesterday.cancelled, yesterday.lost, yesterday.running)
    assert counts == (1, 1, 1, 1, 1)
    assert (yesterday.requests, yesterday.images, yesterday.time_to_first_token_p50) == (5, 10, None)

    (total,) = read_usage(any_database)
    assert (total.requests, total.price, total.group) == (25, today.price, {})


def test_groups_and_filters(any_database: Database) -> None:
    fill(any_database)
    by_key = read_usage(any_database, ["day", "key"], since=DAY)
    assert [(row.group["key"], row.key_name, row.requests) for row in by_key] == [("A", "alpha", 10), ("B", "beta", 10)]
    assert by_key[0].flat()["key_name"] == "alpha"
    by_status = read_usage(any_database, ["model", "status"], until=DAY)
    assert {row.group["status"] for row in by_status} == {"refused", "failed", "cancelled", "lost", "running"}
    assert {row.group["model"] for row in by_status} == {"lite"}
    hours = read_usage(any_database, ["hour"], since=DAY, until=DAY + timedelta(hours=3))
    assert [row.group["hour"] for row in hours] == ["2026-11-30T00:00Z", "2026-11-30T01:00Z", "2026-11-30T02:00Z"]
    assert read_usage(any_database, key="alpha")[0].requests == 10
    assert read_usage(any_database, key="A", model="lite")[0].requests == 0
    assert read_usage(any_database, key_id="alpha")[0].requests == 0  # That is a name.
    assert read_usage(any_database, ["operation"], model="lite")[0].group == {"operation": "Converse"}


def test_an_empty_ledger(any_database: Database) -> None:
    assert read_usage(any_database, ["day"]) == []
    (total,) = read_usage(any_database)
    assert (total.requests, total.price, total.time_to_first_token_p95) == (0, 0, None)
    assert total.flat()["price_usd"] == "0"


def test_times_and_dimensions() -> None:
    now = datetime(2026, 12, 1, 6, tzinfo=UTC)
    assert parse_time("2026-11-30", "since", now) == DAY
    assert parse_time("2026-11-30T01:00+01:00", "since", now) == DAY
    assert parse_time("30h", "since", now) == DAY
    assert parse_time("2d", "since", now) == now - timedelta(days=2)
    assert parse_dimensions(["key", "day"]) == ["day", "key"]
    with pytest.raises(InvalidRequest, match="--since"):
        parse_time("yesterday", "--since", now)
    with pytest.raises(InvalidRequest, match="did you mean 'model'"):
        parse_dimensions(["modle"])
