"""The caller's end of a running request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from kilonova.core.types import GenerationEvent, StopReason, Usage


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a generation has come: tokens so far, seconds to the first (0 before it), and why it ended if it has."""

    usage: Usage
    time_to_first_token: float
    stop_reason: StopReason | None


class Generation(Iterator[GenerationEvent], AsyncIterator[GenerationEvent]):
    """One running request: iterate it, with `for` or `async for`, for its events.

    Events are PromptProcessed, then TextDelta and ToolUse, then Finished. EngineError is raised from the iteration when
    generation fails. `cancel()` may be called from any thread; it ends the iteration without Finished. A generation has
    one reader, on a thread or on an event loop. `progress()` may be called at any time, from any thread.
    """

    def __init__(self, cancel: Callable[[], None], progress: Callable[[], Progress]) -> None:
        self._cancel = cancel
        self.progress = progress
        self._events: SimpleQueue[GenerationEvent | Exception | None] = SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._arrived: asyncio.Future[None] | None = None
        self._ended = False

    def cancel(self) -> None:
        """Stop generating and free the place within one step; harmless when the generation is over."""
        self._cancel()

    def __next__(self) -> GenerationEvent:
        if self._ended:
            raise StopIteration
        return self._open(self._events.get(), StopIteration)

    async def __anext__(self) -> GenerationEvent:
        if self._ended:
            raise StopAsyncIteration
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        while True:
            try:
                return self._open(self._events.get_nowait(), StopAsyncIteration)
            except Empty:
                self._arrived = self._loop.create_future()
                try:
                    await self._arrived
                finally:
                    self._arrived = None

    def _open(self, event: GenerationEvent | Exception | None, end: type[Exception]) -> GenerationEvent:
        if event is None or isinstance(event, Exception):
            self._ended = True
            raise end if event is None else event
        return event

    def put(self, event: GenerationEvent | Exception | None) -> None:
        """Engine's side: append an event, an error, or None for the end. `wake` must follow."""
        self._events.put(event)

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop that reads this generation; None while none does."""
        return self._loop

    def wake(self) -> None:
        """Engine's side, on the reader's event loop: let a waiting reader look again."""
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)
