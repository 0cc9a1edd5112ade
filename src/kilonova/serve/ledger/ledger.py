"""Every call once: opened before the engine gets it, closed when it is over, and held to its key's limits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING

from kilonova.core.types import GenerationRequest, Usage
from kilonova.serve.call import CLIENT_CLOSED_REQUEST, Call, KeyLimits, total_usage
from kilonova.serve.database import Database
from kilonova.serve.ledger.limits import Limiter, Reservation
from kilonova.serve.ledger.prices import FREE, Price, PriceBook, PricesSection
from kilonova.serve.ledger.writer import LedgerWriter, Row

if TYPE_CHECKING:
    from kilonova.engine.generation import Progress
    from kilonova.models.registry import ModelEntry

# What is recorded even if it never got as far as a model. Listings, counts of tokens and pages are not.
INFERENCE_OPERATIONS = frozenset(
    {
        "Converse",
        "ConverseStream",
        "InvokeModel",
        "InvokeModelWithResponseStream",
        "chat.completions",
        "completions",
        "responses",
        "embeddings",
        "images.generations",
        "images.edits",
        "images.variations",
    }
)
# Output tokens that a call is taken to need that does not say how many it wants.
DEFAULT_OUTPUT_TOKENS = 1024

NO_TOKENS = Usage(0, 0)

CountTokens = Callable[[GenerationRequest], Awaitable[int]]

# How long the engine may take to let go of a call that was cancelled, before the ledger stops waiting for its count.
_LETTING_GO_SECONDS = 1.0
_POLL_SECONDS = 0.02


@dataclass(eq=False, slots=True)
class Metering:
    """What the ledger keeps of a call while it runs; `started_at` is milliseconds since 1970."""

    started_at: int
    price: Price = FREE
    price_entry: str = ""
    reservations: list[Reservation] = field(default_factory=list)


class Ledger:
    """The ledger of one server, which prices and limits calls too. All but making and stopping one is to be done on
    one event loop.

    Raises KilonovaError when the database, which must be up to date, cannot be written.
    """

    def __init__(self, database: Database, prices: PricesSection | None = None) -> None:
        self.database = database
        self.prices = PriceBook(prices)
        self._writer = LedgerWriter(database)
        is_shared = database.engine.dialect.name != "sqlite"
        self._limiter = Limiter(database, self._writer.server_id, is_shared=is_shared)
        # Calls with a row, until their end is written; and those that are over but for their tokens.
        self._open: set[Call] = set()
        self._closing: dict[Call, asyncio.TimerHandle] = {}

    async def open(
        self,
        call: Call,
        entry: ModelEntry,
        requests: Sequence[GenerationRequest],
        *,
        base: ModelEntry | None = None,
        count_tokens: CountTokens,
    ) -> None:
        """Admit a call and write its row; generation may start when this returns.

        A call that asks several times has one row. `base` is an adapter's model. Raises Throttled, Unavailable, and
        what `count_tokens` raises.
        """
        metering = self._metering(call, entry, base)
        limits = call.principal.limits
        if limits is not None:
            usage = NO_TOKENS
            if (limits.tokens_per_minute, limits.tokens_per_day, limits.budget_usd) != (None, None, None):
                prompts = [await count_tokens(request) for request in requests]
                answers = [_most_output(each, entry, prompt) for each, prompt in zip(requests, prompts, strict=True)]
                usage = Usage(sum(prompts), sum(answers))
            price = self.prices.cost(usage, metering.price, call.service_tier)
            await self._admit(call, metering, limits, usage.total_tokens, price)
        await self._begin(call, metering)

    async def open_images(self, call: Call, entry: ModelEntry) -> None:
        """As `open`, of a call that asks for its `images`. Raises Throttled and Unavailable."""
        metering = self._metering(call, entry)
        if call.principal.limits is not None:
            count = 0 if call.images is None else call.images.count
            await self._admit(call, metering, call.principal.limits, 0, self._cost(call, metering, NO_TOKENS, count))
        await self._begin(call, metering)

    def _metering(self, call: Call, entry: ModelEntry, base: ModelEntry | None = None) -> Metering:
        if call.metering is None:
            name, price = self.prices.find(entry, base)
            call.metering = Metering(_started_at(call), price, name)
        return call.metering

    async def _begin(self, call: Call, metering: Metering) -> None:
        if call not in self._open:
            self._open.add(call)
            await self._writer.open(self._row(call, metering, "running", ()))

    def _cost(self, call: Call, metering: Metering, usage: Usage, image_count: int) -> int:
        """Picodollars of tokens and of so many of the pictures that a call asks for."""
        pictures = Decimal(0)
        if call.images is not None:
            pictures = metering.price.of_images(image_count, pixels=call.images.pixels, premium=call.images.premium)
        return self.prices.cost(usage, metering.price, call.service_tier, pictures)

    async def _admit(self, call: Call, metering: Metering, limits: KeyLimits, tokens: int, price: int) -> None:
        key_id = call.principal.key_id
        try:
            metering.reservations.append(await self._limiter.admit(key_id, limits, tokens=tokens, price=price))
        finally:
            if call.protocol == "openai":
                call.headers |= self._limiter.headers(key_id, limits)

    def close(self, call: Call) -> None:
        """Write the end of a call, soon. To be called once for each, when its last byte was sent or its client went.

        Of calls that have no row, only requests for inference that were not answered get one.
        """
        is_inference = call.operation in INFERENCE_OPERATIONS and call.method == "POST"
        if call in self._open or (is_inference and call.status >= 400):
            self._close_when_over(call, time.perf_counter() + _LETTING_GO_SECONDS)

    def _close_when_over(self, call: Call, deadline: float) -> None:
        """As soon as the engine has let go of the call, so that its tokens are final."""
        progresses = call.progresses()
        is_over = all(each.is_over or each.stop_reason is not None for each in progresses)
        if not is_over and time.perf_counter() < deadline:
            later = asyncio.get_running_loop().call_later(_POLL_SECONDS, self._close_when_over, call, deadline)
            self._closing[call] = later
            return
        self._closing.pop(call, None)
        self._write_end(call, progresses)

    def _write_end(self, call: Call, progresses: Sequence[Progress]) -> None:
        self._open.discard(call)
        metering = call.metering or Metering(_started_at(call))
        row = self._row(call, metering, _outcome(call, progresses), progresses)
        # The first of its reservations stands for all that the call used.
        used = {"tokens": total_usage(progresses).total_tokens, "price": row["price"]}
        for reservation in metering.reservations:
            self._limiter.settle(reservation, **used)
            used = {"tokens": 0, "price": 0}
        self._writer.close(row)

    async def stop(self) -> None:
        """Write the end of every call and stop; to be called when no more calls come."""
        for timer in self._closing.values():
            timer.cancel()
        for call in {*self._closing, *self._open}:
            self._write_end(call, call.progresses())
        self._closing.clear()
        await asyncio.to_thread(self._writer.stop)

    def _row(self, call: Call, metering: Metering, status: str, progresses: Sequence[Progress]) -> Row:
        usage = total_usage(progresses) if progresses else NO_TOKENS
        # Of a summary of the conversation's beginning and the answer, the answer is the last.
        answer = progresses[-1] if progresses else None
        waited = answer.time_to_first_token if answer is not None else 0.0
        is_over = status != "running"
        return {
            "id": call.id,
            "server_id": self._writer.server_id,
            "started_at": metering.started_at,
            "key_id": call.principal.key_id,
            "key_name": call.principal.name,
            "protocol": call.protocol,
            "operation": call.operation,
            "model": call.model,
            "service_tier": call.service_tier,
            "status": status,
            "http_status": call.status or None,
            "error": call.error[:100],
            "input_tokens": usage.uncached_input_tokens,
            "output_tokens": usage.output_tokens,
            "cache_read_tokens": usage.cache_read_input_tokens,
            "cache_write_tokens": usage.cache_write_input_tokens,
            "images": call.image_count,
            "image_size": "" if call.images is None else call.images.size,
            "image_quality": "" if call.images is None else call.images.quality,
            "video_seconds": 0,
            "time_to_first_token": call.submitted - call.started + waited if waited else None,
            "latency": (call.latency or time.perf_counter() - call.started) if is_over else None,
            "stop_reason": (answer and answer.stop_reason) or "",
            "price": self._cost(call, metering, usage, call.image_count) if progresses else 0,
            "price_entry": metering.price_entry,
            "request_metadata": dict(call.metadata),
        }


def _most_output(request: GenerationRequest, entry: ModelEntry, prompt: int) -> int:
    """The most tokens that a request asks for; where it only repeats the model's bound, what is usual."""
    asked = request.sampling.max_tokens
    if asked is None or asked >= entry.max_output_tokens:
        asked = min(entry.max_output_tokens, DEFAULT_OUTPUT_TOKENS)
    return max(min(asked, entry.context_length - prompt), 0)


def _started_at(call: Call) -> int:
    return int((time.time() - (time.perf_counter() - call.started)) * 1000)


def _outcome(call: Call, progresses: Sequence[Progress]) -> str:
    """How a call ended, as in `tables.STATUSES`."""
    if call.is_abandoned or call.status == CLIENT_CLOSED_REQUEST:
        return "cancelled"
    if call.error or call.status >= 400:
        was_taken = bool(progresses) and call.status != 429
        return "failed" if was_taken or call.status >= 500 else "refused"
    return "finished" if all(each.stop_reason for each in progresses) else "cancelled"
