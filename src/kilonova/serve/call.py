"""One HTTP request while it is answered: who asked, for what, and what came of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal
from typing import Protocol as Interface

from starlette.requests import Request
from starlette.types import Receive

from kilonova.core.errors import AccessDenied, RequestTimeout
from kilonova.core.types import ContextPolicy, ServiceTier, Usage

if TYPE_CHECKING:
    from kilonova.engine.generation import Progress
    from kilonova.serve.ledger.ledger import Metering

Protocol = Literal["bedrock", "openai", "console", ""]
BudgetPeriod = Literal["day", "month", "total"]

MAX_BODY_BYTES = 25_000_000
# Nginx's status for a client that closed its connection; it is logged and never sent.
CLIENT_CLOSED_REQUEST = 499

_SCOPE_KEY = "kilonova.call"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyLimits:
    """What a key may use; None stands for no limit.

    Minutes slide; days and months are calendar ones in UTC. Tokens are those of prompt and answer together.
    """

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    tokens_per_day: int | None = None
    budget_usd: Decimal | None = None
    budget_period: BudgetPeriod = "month"


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who makes a request; without a `key_id` anyone, where the server asks for no key.

    `models` and `operations` are what it may use, by registry name and by the API's name (`Converse`,
    `chat.completions`); None stands for all. `limits` is None where there are none. `context` is what becomes of
    its prompts that do not fit where a request does not say.
    """

    key_id: str = ""
    name: str = ""
    models: frozenset[str] | None = None
    operations: frozenset[str] | None = None
    limits: KeyLimits | None = None
    context: ContextPolicy | None = None


ANYONE = Principal()


class Work(Interface):
    """What is under way for a call: a text generation, or a job of pictures."""

    def progress(self) -> Progress:
        """How far it has come."""

    def cancel(self) -> None:
        """Stop it; harmless when it is over."""

    def fail(self, error: Exception) -> None:
        """Stop it, and let its reader have `error`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageOrder:
    """The pictures that a call asks for: how many, of how many pixels, and how good."""

    count: int
    width: int
    height: int
    premium: bool

    @property
    def pixels(self) -> int:
        """Those of one picture."""
        return self.width * self.height

    @property
    def size(self) -> str:
        """`1024x1024`."""
        return f"{self.width}x{self.height}"

    @property
    def quality(self) -> str:
        """As the API names it."""
        return "premium" if self.premium else "standard"


@dataclass(eq=False, slots=True, kw_only=True)
class Call:
    """A request from its arrival until its last byte is sent; handlers fill in what they learn.

    `started` is `time.perf_counter()` seconds. `operation` is empty for what is neither scoped nor metered (health,
    pages). `error` is the protocol's name of the error it was answered with, also inside a stream. `headers` are added
    to the response when it starts. `generations` are texts and pictures under way; `sharing` are those whose prompt is
    that of an earlier one, and counts with it; `images` are the pictures it asks for, if it does. `failure` is what it
    was made to fail with. `status`, that of the response, 499 where there was none, `latency` in seconds, and whether
    the client went before its end (`is_abandoned`) are known at the end. `receive`, once the body was read, tells of
    the client's going. `context` is what was done to its prompts to make them fit.
    """

    id: str
    started: float
    method: str = ""
    path: str = ""
    principal: Principal = ANYONE
    protocol: Protocol = ""
    operation: str = ""
    model: str = ""
    service_tier: ServiceTier = "default"
    metadata: Mapping[str, str] = field(default_factory=dict)
    generations: list[Work] = field(default_factory=list)
    sharing: set[Work] = field(default_factory=set)
    images: ImageOrder | None = None
    error: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    trace_headers: Mapping[str, str] = field(default_factory=dict)
    submitted: float = 0.0
    status: int = 0
    latency: float = 0.0
    is_abandoned: bool = False
    max_body_bytes: int = MAX_BODY_BYTES
    receive_seconds: float | None = None
    observe_chunk: Callable[[float], None] | None = None
    failure: Exception | None = None
    metering: Metering | None = None
    receive: Receive | None = None
    context: Mapping[str, Any] | None = None
    _waiting: asyncio.Timeout | None = None

    def begin(self, protocol: Protocol, operation: str) -> None:
        """Name what is asked for. Raises AccessDenied where the principal may not, and its failure if it has one."""
        self.protocol, self.operation = protocol, operation
        if self.failure is not None:
            raise self.failure
        self.check_scope(operation)

    def check_scope(self, operation: str) -> None:
        """Raises AccessDenied where the principal may not use `operation`."""
        allowed = self.principal.operations
        if operation and allowed is not None and operation not in allowed:
            raise AccessDenied(f"this key may not use {operation}")

    def fail(self, error: Exception) -> None:
        """Answer it with `error`, once: where it reads or waits now, or what its generations raise."""
        if self.failure is not None:
            return
        self.failure = error
        if self._waiting is not None:
            self._waiting.reschedule(0)
        for generation in self.generations:
            generation.fail(error)

    @contextlib.asynccontextmanager
    async def interruptible(self, seconds: float | None = None) -> AsyncIterator[None]:
        """Lets `fail` end what is awaited inside, which then raises its error; RequestTimeout after `seconds`."""
        if self.failure is not None:
            raise self.failure
        try:
            async with asyncio.timeout(seconds) as self._waiting:
                yield
        except TimeoutError:
            raise self.failure or RequestTimeout(f"the request did not arrive within {seconds:g} seconds") from None
        finally:
            self._waiting = None

    @property
    def usage(self) -> Usage:
        """Tokens of its generations so far."""
        return total_usage(self.progresses())

    @property
    def image_count(self) -> int:
        """The pictures that were made: all that were asked for, or none."""
        is_made = bool(self.generations) and all(each.progress().stop_reason is not None for each in self.generations)
        return self.images.count if self.images is not None and is_made else 0

    def progresses(self) -> list[Progress]:
        """How far its generations have come, with the tokens that each adds to its usage."""
        return [
            replace(progress, usage=Usage(0, progress.usage.output_tokens)) if generation in self.sharing else progress
            for generation in self.generations
            for progress in [generation.progress()]
        ]


def total_usage(progresses: Iterable[Progress]) -> Usage:
    """Tokens of all generations that were given a place."""
    parts = [progress.usage for progress in progresses if progress.queue_time is not None]
    return Usage(
        sum([part.input_tokens for part in parts]),
        sum([part.output_tokens for part in parts]),
        sum([part.cache_read_input_tokens for part in parts]),
        sum([part.cache_write_input_tokens for part in parts]),
    )


def set_call(scope: dict, call: Call) -> None:
    """Attach `call` to an ASGI scope."""
    scope[_SCOPE_KEY] = call


def scope_call(scope: Mapping[str, Any]) -> Call:
    """The call that an ASGI scope belongs to."""
    return scope[_SCOPE_KEY]


def call_of(request: Request) -> Call:
    """The call that a request belongs to."""
    return scope_call(request.scope)
