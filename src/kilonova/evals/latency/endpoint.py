"""What a load generator needs of a served model, whatever its protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from kilonova.core.errors import KilonovaError


class EndpointError(KilonovaError):
    """The endpoint cannot be measured: it is not there, broke off an answer, or turns down every request."""


class RequestRefused(KilonovaError):
    """The endpoint answered one request with an error, such as that it is overloaded."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One whole streamed answer. Times are in seconds since the request was sent.

    `arrivals` are those of the events that carried text, `total` that of the end of the stream. Token counts are the
    endpoint's own, None where it reports none.
    """

    arrivals: tuple[float, ...]
    total: float
    text: str
    input_tokens: int | None
    output_tokens: int | None


class Endpoint(Protocol):
    """A served model. `settings` tells what every request asks for beyond its prompt and length."""

    @property
    def settings(self) -> Mapping[str, Any]: ...

    async def ask(self, prompt: str, max_tokens: int) -> Reply:
        """Streams the answer to `prompt`. Raises RequestRefused, or EndpointError when it is of no use to go on."""
        ...

    async def close(self) -> None:
        """Ends its connections."""
        ...


@dataclass(slots=True)
class ReplyBuilder:
    """Gathers a reply while it streams; `now` is seconds since the request was sent."""

    arrivals: list[float] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    input_tokens: int | None = None
    output_tokens: int | None = None

    def add_text(self, text: str, now: float) -> None:
        """Takes in the text of an event; one without any does not count as an arrival."""
        if text:
            self.arrivals.append(now)
            self.pieces.append(text)

    def build(self, total: float) -> Reply:
        """The whole reply."""
        return Reply(tuple(self.arrivals), total, "".join(self.pieces), self.input_tokens, self.output_tokens)
