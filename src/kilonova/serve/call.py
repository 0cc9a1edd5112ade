"""One HTTP request while it is answered: who asked, for what, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from starlette.requests import Request

from kilonova.core.errors import AccessDenied
from kilonova.core.types import ServiceTier, Usage

if TYPE_CHECKING:
    from kilonova.engine.generation import Generation

Protocol = Literal["bedrock", "openai", "console", ""]

_SCOPE_KEY = "kilonova.call"


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who makes a request; without a `key_id` anyone, where the server asks for no key.

    `models` and `operations` are what it may use, by registry name and by the API's name (`Converse`,
    `chat.completions`); None stands for all.
    """

    key_id: str = ""
    name: str = ""
    models: frozenset[str] | None = None
    operations: frozenset[str] | None = None


ANYONE = Principal()


@dataclass(eq=False, slots=True, kw_only=True)
class Call:
    """A request from its arrival until its last byte is sent; handlers fill in what they learn.

    `started` is `time.perf_counter()` seconds. `operation` is empty for what is neither scoped nor metered (health,
    pages). `error` is the protocol's name of the error it was answered with, also inside a stream. `headers` are added
    to the response when it starts.
    """

    id: str
    started: float
    principal: Principal = ANYONE
    protocol: Protocol = ""
    operation: str = ""
    model: str = ""
    service_tier: ServiceTier = "default"
    metadata: Mapping[str, str] = field(default_factory=dict)
    generations: list[Generation] = field(default_factory=list)
    error: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    def begin(self, protocol: Protocol, operation: str) -> None:
        """Name what is asked for. Raises AccessDenied where the principal may not."""
        self.protocol, self.operation = protocol, operation
        allowed = self.principal.operations
        if allowed is not None and operation not in allowed:
            raise AccessDenied(f"this key may not use {operation}")

    @property
    def usage(self) -> Usage:
        """Tokens of its generations so far; those that share a prompt pay for it once each."""
        parts = [generation.progress().usage for generation in self.generations]
        return Usage(
            sum(part.input_tokens for part in parts),
            sum(part.output_tokens for part in parts),
            sum(part.cache_read_input_tokens for part in parts),
            sum(part.cache_write_input_tokens for part in parts),
        )


def set_call(scope: dict, call: Call) -> None:
    """Attach `call` to an ASGI scope."""
    scope[_SCOPE_KEY] = call


def call_of(request: Request) -> Call:
    """The call that a request belongs to."""
    return request.scope[_SCOPE_KEY]
