"""The requests a server is answering: how many it takes, how long each may take, and how they end when it stops."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from kilonova.core.errors import Overloaded, RequestTimeout, Unavailable
from kilonova.serve.call import Call
from kilonova.serve.settings import LimitsSection

logger = logging.getLogger(__name__)

# How often requests are looked at.
TICK_SECONDS = 0.25
# How long answers that were made to fail may take to say so.
FAREWELL_SECONDS = 5.0
# When to come back to a server that stops: another one may have taken its place by then.
_RESTART_SECONDS = 5.0
# What a platform asks, above all of a server that is stopping or has too much to do.
_ALWAYS_ANSWERED = ("/health", "/metrics")


class Lifecycle:
    """Knows every open request. All but `stop` is to be called on the event loop."""

    def __init__(self, limits: LimitsSection | None = None) -> None:
        self.limits = limits or LimitsSection()
        self.calls: set[Call] = set()
        self.is_loading = False
        self.is_stopping = False
        self._is_hurried = False

    def enter(self, call: Call) -> None:
        """Take in a request; one there is no place for fails as soon as its protocol begins to answer it."""
        call.max_body_bytes = self.limits.max_body_bytes
        call.receive_seconds = self.limits.receive_seconds
        if call.path.startswith(_ALWAYS_ANSWERED):
            pass
        elif self.is_stopping:
            call.headers["connection"] = "close"
            call.fail(_stopping())
        elif len(self.calls) >= self.limits.max_concurrent_requests:
            call.fail(Overloaded(f"{len(self.calls)} requests are being answered; try again later"))
        self.calls.add(call)

    def leave(self, call: Call) -> None:
        """Forget a request whose last byte was sent, or whose client went."""
        self.calls.discard(call)

    def stop(self) -> None:
        """Take no more requests; the second time, stop waiting for those that run. Safe in a signal handler."""
        self._is_hurried = self.is_stopping
        self.is_stopping = True

    async def watch(self, observe_lag: Callable[[float], None], *others: Callable[[], None]) -> None:
        """For ever, every `TICK_SECONDS`: end requests that took too long, call `others`, report the loop's delay."""
        while True:
            due = time.perf_counter() + TICK_SECONDS
            await asyncio.sleep(TICK_SECONDS)
            now = time.perf_counter()
            observe_lag(max(0.0, now - due))
            try:
                self.check(now)
                for other in others:
                    other()
            except Exception:
                logger.exception("a look at the open requests failed")

    def check(self, now: float) -> None:
        """End requests that took too long by `now`, and when the server stops those that wait."""
        limits = self.limits
        for call in self.calls:
            if call.failure is not None or not call.operation:
                continue
            if now - call.started > limits.request_seconds:
                call.fail(RequestTimeout(f"the request took longer than {limits.request_seconds:g} seconds"))
            elif self.is_stopping and _is_waiting(call):
                call.fail(_stopping())
            elif call.submitted and now - call.submitted > limits.queue_seconds and _is_waiting(call):
                waited = f"the request waited longer than {limits.queue_seconds:g} seconds"
                call.fail(Overloaded(f"{waited}; try again later", retry_after=_RESTART_SECONDS))

    async def drain(self, seconds: float) -> None:
        """Wait for every request to end; those that still run after `seconds` fail, each in its protocol's way."""
        deadline = time.perf_counter() + seconds
        while self.calls and time.perf_counter() < deadline and not self._is_hurried:
            self.check(time.perf_counter())
            await asyncio.sleep(0.02)
        for call in self.calls:
            call.fail(_stopping())
        deadline = time.perf_counter() + FAREWELL_SECONDS
        while self.calls and time.perf_counter() < deadline:
            await asyncio.sleep(0.02)


def _is_waiting(call: Call) -> bool:
    """Whether none of its generations has been given a place yet."""
    return bool(call.generations) and all(each.progress().queue_time is None for each in call.generations)


def _stopping() -> Unavailable:
    return Unavailable("The server is stopping; try again.", retry_after=_RESTART_SECONDS)
