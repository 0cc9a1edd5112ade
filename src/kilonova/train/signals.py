"""Stopping a run politely."""

from __future__ import annotations

import signal

from kilonova.core.errors import KilonovaError


class Interrupted(KilonovaError):
    """The run was asked to stop; its state is saved and the same command continues it."""


class StopSignals:
    """Remembers SIGINT and SIGTERM, so that a step is finished and saved before the run ends."""

    def __enter__(self) -> StopSignals:
        self.requested = False
        self._previous = {}
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._previous[number] = signal.signal(number, self._request)
            except ValueError:  # not the main thread: the caller handles signals
                break
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _request(self, *_: object) -> None:
        self.requested = True
