import asyncio
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from tests.serve.ledger.conftest import make_row

from kilonova.core.errors import Throttled, Unavailable
from kilonova.serve.call import KeyLimits
from kilonova.serve.database import Database
from kilonova.serve.ledger.limits import REFRESH_SECONDS, Limiter, Reservation, period_start
from kilonova.serve.ledger.tables import calls

NOON = datetime(2026, 11, 30, 12, tzinfo=UTC).timestamp()
DOLLAR = 10**12


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


class Caller:
    """A key with limits and a limiter whose clock can be set."""

    def __init__(self, database: Database, is_shared: bool = False, **limits: Any) -> None:
        self.clock = Clock()
        self.limits = KeyLimits(**limits)
        self.limiter = Limiter(database, "me", is_shared=is_shared, clock=self.clock)

    async def ask(self, tokens: int = 0, price: int = 0) -> Reservation:
        return await self.limiter.admit("key", self.limits, tokens=tokens, price=price)

    async def refused(self, tokens: int = 0, price: int = 0) -> Throttled:
        with pytest.raises(Throttled) as raised:
            await self.ask(tokens, price)
        return raised.value


def write(database: Database, *rows: dict[str, Any]) -> None:
    with database.write() as connection:
        connection.execute(calls.insert(), list(rows))


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    def run(any_database: Database) -> None:
        asyncio.run(test(any_database))

    run.__name__ = test.__name__
    return run


@in_loop
async def test_requests_slide_over_a_minute(database: Database) -> None:
    caller = Caller(database, requests_per_minute=3)
    for _ in range(3):
        await caller.ask()
        caller.clock.now += 10
    assert (await caller.refused()).retry_after == 30  # The first was half a minute ago.
    caller.clock.now += 30
    await caller.ask()
    assert (await caller.refused()).retry_after == 10


@in_loop
async def test_many_at_once_get_no_more_than_the_limit(database: Database) -> None:
    caller = Caller(database, requests_per_minute=7)
    outcomes = await asyncio.gather(*(caller.ask() for _ in range(50)), return_exceptions=True)
    assert sum(isinstance(outcome, Reservation) for outcome in outcomes) == 7
    assert all(isinstance(outcome, Reservation | Throttled) for outcome in outcomes)


@in_loop
async def test_tokens_are_reserved_and_settled(database: Database) -> None:
    caller = Caller(database, tokens_per_minute=1000)
    first = await caller.ask(tokens=700)
    caller.clock.now += 20
    await caller.ask(tokens=200)
    assert (await caller.refused(tokens=200)).retry_after == 40  # 700 leave in 40 seconds.
    caller.limiter.settle(first, tokens=50, price=0)
    await caller.ask(tokens=750)
    assert (await caller.refused(tokens=1)).retry_after == 40  # Those 50 are enough.
    caller.clock.now += 39.999
    await caller.refused(tokens=1)
    caller.clock.now += 0.001
    await caller.ask(tokens=50)
    error = await caller.refused(tokens=1001)
    assert error.retry_after is None
    assert "1001" in str(error)


@in_loop
async def test_a_call_longer_than_the_window_settles_without_harm(database: Database) -> None:
    caller = Caller(database, tokens_per_minute=1000, tokens_per_day=10_000)
    long = await caller.ask(tokens=900)
    caller.clock.now += 61
    await caller.ask(tokens=900)
    caller.limiter.settle(long, tokens=100, price=0)
    await caller.ask(tokens=100)
    await caller.refused(tokens=1)


@in_loop
async def test_tokens_of_a_day_begin_anew_at_midnight_in_utc(database: Database) -> None:
    caller = Caller(database, tokens_per_day=1000)
    running = await caller.ask(tokens=1000)
    error = await caller.refused(tokens=1)
    assert error.retry_after == 12 * 3600
    caller.clock.now += 12 * 3600
    await caller.ask(tokens=1000)
    caller.limiter.settle(running, tokens=10, price=0)  # Of yesterday.
    await caller.refused(tokens=1)
    assert (await caller.refused(tokens=1001)).retry_after is None


@pytest.mark.parametrize(("period", "retry_after"), [("day", 12 * 3600), ("month", 12 * 3600), ("total", None)])
def test_money(sqlite_database: Database, period: str, retry_after: float | None) -> None:
    async def test() -> None:
        caller = Caller(sqlite_database, budget_usd=Decimal("0.5"), budget_period=period)
        first = await caller.ask(price=DOLLAR // 2)
        error = await caller.refused(price=1)
        assert error.retry_after == retry_after  # NOON is on the last day of a month.
        assert "0.5 US dollars" in str(error)
        caller.limiter.settle(first, tokens=0, price=DOLLAR // 4)
        await caller.ask(price=DOLLAR // 4)
        await caller.refused(price=1)
        await caller.ask(price=0)  # What costs nothing needs no budget.
        caller.clock.now += 12 * 3600
        if period == "total":
            await caller.refused(price=1)
        else:
            await caller.ask(price=DOLLAR // 2)

    asyncio.run(test())


@in_loop
async def test_what_was_used_before_comes_from_the_ledger(database: Database) -> None:
    def used(identifier: str, seconds_ago: float, **values: Any) -> dict[str, Any]:
        return make_row(
            identifier, key_id="key", started_at=int((NOON - seconds_ago) * 1000), status="finished", **values
        )

    write(
        database,
        used("now", 20, input_tokens=10, output_tokens=20, cache_read_tokens=30, cache_write_tokens=40, price=DOLLAR),
        used("mine", 10, input_tokens=100, server_id="me"),  # Before the key had limits.
        used("this morning", 3600, input_tokens=1000, price=DOLLAR),
        used("this month", 20 * 86400, input_tokens=10_000, price=DOLLAR),
        used("last month", 31 * 86400, price=100 * DOLLAR),
        used("refused", 5, input_tokens=500) | {"status": "refused"},
        used("of another", 5, input_tokens=500) | {"key_id": "other"},
    )
    limits = {"requests_per_minute": 3, "tokens_per_minute": 300, "tokens_per_day": 1300}
    caller = Caller(database, **limits, budget_usd=Decimal(4), budget_period="month")
    assert (await caller.refused(tokens=101)).retry_after == 40  # 200 of 300 are used.
    assert "1200 are used" in str(await Caller(database, tokens_per_day=1300).refused(tokens=101))
    assert "3.000000 are spent" in str(await Caller(database, budget_usd=Decimal(4)).refused(price=DOLLAR + 1))
    await caller.ask(tokens=100, price=DOLLAR)
    assert (await caller.refused()).retry_after == 40  # Three requests.


@in_loop
async def test_other_servers_are_seen_where_the_database_is_shared(database: Database) -> None:
    caller = Caller(database, is_shared=True, tokens_per_day=1000)
    await caller.ask(tokens=100)
    elsewhere = make_row("elsewhere", key_id="key", started_at=int(NOON * 1000), input_tokens=800, status="finished")
    mine = make_row("mine", key_id="key", started_at=int(NOON * 1000), input_tokens=100, server_id="me")
    write(database, elsewhere, mine)
    caller.clock.now += REFRESH_SECONDS + 1
    await caller.ask(tokens=10)  # Starts the reading.
    await asyncio.sleep(0.2)
    await caller.ask(tokens=90)
    assert "1000 are used" in str(await caller.refused(tokens=1))


@in_loop
async def test_headers_are_openais(database: Database) -> None:
    caller = Caller(database, requests_per_minute=10, tokens_per_minute=1000)
    assert caller.limiter.headers("key", caller.limits) == {}
    await caller.ask(tokens=100)
    caller.clock.now += 1.5
    await caller.ask(tokens=200)
    caller.clock.now += 0.25
    assert caller.limiter.headers("key", caller.limits) == {
        "x-ratelimit-limit-requests": "10",
        "x-ratelimit-remaining-requests": "8",
        "x-ratelimit-reset-requests": "59.75s",
        "x-ratelimit-limit-tokens": "1000",
        "x-ratelimit-remaining-tokens": "700",
        "x-ratelimit-reset-tokens": "59.75s",
    }


def test_a_ledger_that_cannot_be_read_admits_nobody(tmp_path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'empty.db'}")  # Without tables.
    with pytest.raises(Unavailable):
        asyncio.run(Caller(database, tokens_per_day=1).ask())
    database.close()


def test_periods() -> None:
    late = datetime(2027, 1, 31, 23, 59, 59, tzinfo=UTC).timestamp()
    assert period_start("day", late) == datetime(2027, 1, 31, tzinfo=UTC)
    assert period_start("month", late) == datetime(2027, 1, 1, tzinfo=UTC)
    assert period_start("month", late + 1) == datetime(2027, 2, 1, tzinfo=UTC)
