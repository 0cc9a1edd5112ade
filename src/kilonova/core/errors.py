"""Errors that callers can act on; each protocol maps them to its own statuses."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class KilonovaError(Exception):
    """Base of every error this package raises on purpose; its text says what to do."""


class ConfigError(KilonovaError):
    """A recipe, setting or checkpoint configuration is not usable."""


class CheckpointError(KilonovaError):
    """A checkpoint directory lacks something, or its tensors do not fit the configuration."""


class DataError(KilonovaError):
    """A data source is missing or malformed."""


class InvalidRequest(KilonovaError):
    """A request breaks a rule; `field` names the member at fault in dotted form, when there is one."""

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class ContextLengthExceeded(InvalidRequest):
    """The prompt, or prompt and `max_tokens` together, exceed the model's context."""


class ModelNotFound(KilonovaError):
    """No model answers to this name."""


class UnsuitableModel(KilonovaError):
    """There is such a model, and it does not do this: it makes pictures, or it makes none."""


class Unauthenticated(KilonovaError):
    """The request carries no credentials that are known here."""


class AccessDenied(KilonovaError):
    """The caller is known, and may not do this."""


class Overloaded(KilonovaError):
    """There is no place for the request; the caller may retry after `retry_after` seconds."""

    def __init__(self, message: str, *, retry_after: float | None = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Unavailable(KilonovaError):
    """The server is stopping, or an engine is being restarted; the caller may retry after `retry_after` seconds."""

    def __init__(self, message: str, *, retry_after: float | None = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RequestTimeout(KilonovaError):
    """The request took longer than the server allows."""


class Cancelled(KilonovaError):
    """The caller gave the work up before it was done."""


class Throttled(KilonovaError):
    """The caller has used up what its key allows; `retry_after` is in seconds, None where waiting does not help."""

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class EngineError(KilonovaError):
    """Generation failed inside the engine through no fault of the request."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A sentence fragment that suggests the known name closest to `name`, or lists what is known."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else "known: " + ", ".join(known)
