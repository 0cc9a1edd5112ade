"""Requests, tokens and money a key may use: admission before the engine, settled when the call ends."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from kilonova.core.errors import Throttled, Unavailable
from kilonova.serve.call import BudgetPeriod, KeyLimits
from kilonova.serve.database import Database
from kilonova.serve.ledger.prices import PICODOLLARS, to_dollars
from kilonova.serve.ledger.tables import calls

logger = logging.getLogger(__name__)

MINUTE = 60.0
# How old what other servers wrote about a key may be, where several share a database.
REFRESH_SECONDS = 15.0

_FOREVER = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Spent:
    """What a key has used according to the ledger: the last minute's calls (seconds since 1970, tokens), oldest first;
    the tokens since `day`; the picodollars since `period`."""

    minute: list[tuple[float, int]]
    day: datetime
    day_tokens: int
    period: datetime
    picodollars: int


@dataclass(slots=True)
class _Counter:
    """An amount since the start of a calendar period; a new period starts at 0."""

    start: datetime = _FOREVER
    amount: int = 0

    def add(self, start: datetime, amount: int) -> None:
        if start == self.start:
            self.amount += amount
        elif start > self.start:
            self.start, self.amount = start, amount

    def since(self, start: datetime) -> int:
        return self.amount if start == self.start else 0


@dataclass(eq=False, slots=True)
class _Use:
    """A key's calls here since it was first seen with its limits, and what the ledger tells of others: of earlier ones
    on this server, which is read once, and of those on other servers."""

    limits: KeyLimits
    window: deque[Reservation] = field(default_factory=deque)
    window_tokens: int = 0
    day: _Counter = field(default_factory=_Counter)
    period: _Counter = field(default_factory=_Counter)
    earlier: Spent | None = None
    others: Spent | None = None
    read_at: float = 0.0
    reading: asyncio.Task[None] | None = None

    def add(self, reservation: Reservation) -> None:
        self.window.append(reservation)
        self.window_tokens += reservation.tokens
        self._count(reservation.at, reservation.tokens, reservation.price)

    def change(self, reservation: Reservation, tokens: int, price: int) -> None:
        if reservation.in_window:
            self.window_tokens += tokens - reservation.tokens
        self._count(reservation.at, tokens - reservation.tokens, price - reservation.price)
        reservation.tokens, reservation.price = tokens, price

    def _count(self, at: float, tokens: int, price: int) -> None:
        self.day.add(period_start("day", at), tokens)
        self.period.add(period_start(self.limits.budget_period, at), price)

    def forget_before(self, start: float) -> None:
        while self.window and self.window[0].at <= start:
            reservation = self.window.popleft()
            reservation.in_window = False
            self.window_tokens -= reservation.tokens

    def merge(self, spent: Spent, *, is_elsewhere: bool) -> None:
        """Put the calls of `spent` among those of the last minute, in place of what was known of other servers."""
        kept = [each for each in self.window if not (is_elsewhere and each.is_elsewhere)]
        merged = [Reservation(self, at, tokens, 0, is_elsewhere=is_elsewhere) for at, tokens in spent.minute]
        self.window = deque(sorted((*kept, *merged), key=lambda each: each.at))
        self.window_tokens = sum(each.tokens for each in self.window)

    def tokens_since(self, day: datetime) -> int:
        read = [spent.day_tokens for spent in (self.earlier, self.others) if spent is not None and spent.day == day]
        return self.day.since(day) + sum(read)

    def picodollars_since(self, period: datetime) -> int:
        known = [spent for spent in (self.earlier, self.others) if spent is not None and spent.period == period]
        return self.period.since(period) + sum(spent.picodollars for spent in known)


@dataclass(eq=False, slots=True)
class Reservation:
    """What one admitted call may use at most, or when it is over what it used; `at` is seconds since 1970."""

    use: _Use
    at: float
    tokens: int
    price: int
    in_window: bool = True
    is_elsewhere: bool = False


class Limiter:
    """Keeps keys within their limits. All of it runs on one event loop.

    A call counts from its admission with all the tokens and money it may use, and from its end with those it used. What
    was used before is read from the ledger when a key with limits is first seen. Where other servers write to the same
    database (`is_shared`), what they add is read again every REFRESH_SECONDS.
    """

    def __init__(
        self, database: Database, server_id: str, *, is_shared: bool = False, clock: Callable[[], float] = time.time
    ) -> None:
        self._database = database
        self._server_id = server_id
        self._is_shared = is_shared
        self._clock = clock
        self._keys: dict[str, _Use] = {}

    async def admit(self, key_id: str, limits: KeyLimits, *, tokens: int, price: int) -> Reservation:
        """Count a call of at most `tokens` and `price` picodollars, or raise Throttled and count nothing.

        Raises Unavailable when the ledger cannot be read.
        """
        use = await self._use(key_id, limits)
        now = self._clock()
        use.forget_before(now - MINUTE)
        _check(use, now, tokens, price)
        reservation = Reservation(use, now, tokens, price)
        use.add(reservation)
        return reservation

    def settle(self, reservation: Reservation, *, tokens: int, price: int) -> None:
        """Count a call that is over with what it used."""
        reservation.use.change(reservation, tokens, price)

    def headers(self, key_id: str, limits: KeyLimits) -> dict[str, str]:
        """OpenAI's rate-limit headers, for the limits a minute that the key has."""
        use = self._keys.get(key_id)
        if use is None:
            return {}
        now = self._clock()
        use.forget_before(now - MINUTE)
        reset = _duration(use.window[-1].at + MINUTE - now if use.window else 0.0)
        headers = {}
        for what, limit, used in (
            ("requests", limits.requests_per_minute, len(use.window)),
            ("tokens", limits.tokens_per_minute, use.window_tokens),
        ):
            if limit is not None:
                headers[f"x-ratelimit-limit-{what}"] = str(limit)
                headers[f"x-ratelimit-remaining-{what}"] = str(max(limit - used, 0))
                headers[f"x-ratelimit-reset-{what}"] = reset
        return headers

    async def _use(self, key_id: str, limits: KeyLimits) -> _Use:
        now = self._clock()
        use = self._keys.get(key_id)
        if use is None or use.limits != limits:
            use = self._keys[key_id] = _Use(limits)
        others = use.others
        is_old = (
            others is None
            or others.day != period_start("day", now)
            or others.period != period_start(limits.budget_period, now)
            or (self._is_shared and now - use.read_at > REFRESH_SECONDS)
        )
        if is_old and use.reading is None:
            use.reading = asyncio.ensure_future(self._read(key_id, use, now))
        if others is None and use.reading is not None:
            try:
                await asyncio.shield(use.reading)
            except SQLAlchemyError as error:
                raise Unavailable("The limits of this key cannot be checked now; try again later.") from error
        return use

    async def _read(self, key_id: str, use: _Use, now: float) -> None:
        def read(is_mine: bool) -> Spent:
            which = calls.c.server_id == self._server_id if is_mine else calls.c.server_id != self._server_id
            return read_spent(self._database, key_id, use.limits, now, which)

        try:
            if use.earlier is None:
                earlier = await asyncio.to_thread(read, True)
                use.merge(earlier, is_elsewhere=False)
                use.earlier = earlier
            others = await asyncio.to_thread(read, False)
            use.merge(others, is_elsewhere=True)
            use.others, use.read_at = others, now
        except SQLAlchemyError:
            logger.exception("what key %s has used cannot be read", key_id)
            if use.others is None:
                raise
        finally:
            use.reading = None


def read_spent(database: Database, key_id: str, limits: KeyLimits, now: float, which: sa.ColumnElement[bool]) -> Spent:
    """What a key has used according to the ledger's rows of `which`."""
    day, period = period_start("day", now), period_start(limits.budget_period, now)
    all_tokens = calls.c.input_tokens + calls.c.output_tokens + calls.c.cache_read_tokens + calls.c.cache_write_tokens

    def since(start: float) -> sa.ColumnElement[bool]:
        is_counted = sa.and_(calls.c.key_id == key_id, calls.c.status != "refused", which)
        return sa.and_(is_counted, calls.c.started_at >= int(start * 1000))

    with database.engine.connect() as connection:
        minute = connection.execute(
            sa.select(calls.c.started_at, all_tokens).where(since(now - MINUTE)).order_by(calls.c.started_at)
        ).all()
        day_tokens = picodollars = 0
        if limits.tokens_per_day is not None:
            day_tokens = connection.scalar(sa.select(sa.func.sum(all_tokens)).where(since(day.timestamp()))) or 0
        if limits.budget_usd is not None:
            spent = sa.select(sa.func.sum(calls.c.price)).where(since(period.timestamp()))
            picodollars = connection.scalar(spent) or 0
    return Spent([(at / 1000, tokens) for at, tokens in minute], day, int(day_tokens), period, int(picodollars))


def period_start(period: BudgetPeriod, at: float) -> datetime:
    """When the period that holds the moment `at` (seconds since 1970) began, in UTC."""
    if period == "total":
        return _FOREVER
    moment = datetime.fromtimestamp(at, UTC)
    day = moment.day if period == "day" else 1
    return datetime(moment.year, moment.month, day, tzinfo=UTC)


def _period_end(period: BudgetPeriod, at: float) -> float | None:
    """Seconds from `at` to the end of the period; None for one without an end."""
    if period == "total":
        return None
    start = period_start(period, at)
    # The 32nd day after the first of a month is in the next month.
    end = start + timedelta(days=1) if period == "day" else (start + timedelta(days=32)).replace(day=1)
    return end.timestamp() - at


def _check(use: _Use, now: float, tokens: int, price: int) -> None:
    limits, window = use.limits, use.window
    limit = limits.requests_per_minute
    if limit is not None and len(window) >= limit:
        wait = window[len(window) - limit].at + MINUTE - now if limit else None
        raise Throttled(f"Rate limit reached: {limit} requests a minute.", retry_after=wait)
    needs = f"this request may need {tokens}: those of its prompt and its maximum of output tokens"
    limit = limits.tokens_per_minute
    if limit is not None and use.window_tokens + tokens > limit:
        raise Throttled(
            f"Rate limit reached: {limit} tokens a minute. {use.window_tokens} are used or reserved, and {needs}.",
            retry_after=_wait_for_tokens(use, limit - tokens, now),
        )
    limit = limits.tokens_per_day
    used = use.tokens_since(period_start("day", now))
    if limit is not None and used + tokens > limit:
        raise Throttled(
            f"Quota reached: {limit} tokens a day (UTC). {used} are used or reserved, and {needs}.",
            retry_after=_period_end("day", now) if tokens <= limit else None,
        )
    if limits.budget_usd is not None:
        period = limits.budget_period
        budget = int(limits.budget_usd * PICODOLLARS)
        used = use.picodollars_since(period_start(period, now))
        if used + price > budget:
            of = "in all" if period == "total" else f"a {period} (UTC)"
            raise Throttled(
                f"Budget reached: {limits.budget_usd} US dollars {of}. {_dollars(used)} are spent or reserved, and "
                f"this request may cost {_dollars(price)}.",
                retry_after=_period_end(period, now) if price <= budget else None,
            )


def _wait_for_tokens(use: _Use, room_for: int, now: float) -> float | None:
    """Seconds until the last minute's calls have at most `room_for` tokens; None if that never happens."""
    if room_for < 0:
        return None
    left = use.window_tokens
    for reservation in use.window:
        left -= reservation.tokens
        if left <= room_for:
            return reservation.at + MINUTE - now
    return 0.0


def _dollars(picodollars: int) -> Decimal:
    return to_dollars(picodollars).quantize(Decimal("0.000001"))


def _duration(seconds: float) -> str:
    """As OpenAI writes it: `1.5s`, `0s`."""
    return f"{max(seconds, 0.0):.3f}".rstrip("0").rstrip(".") + "s"
