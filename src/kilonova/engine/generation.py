"""The caller's end of a running request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from kilonova.core.types import GenerationEvent, StopReason, Usage


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a generation has come: tokens so far, seconds to the first (0 before it), and why it ended if it has.

    `queue_time` is the seconds it waited for a place, None while it waits. When it `is_over`, nothing changes any more.
    """

    usage: Usage
    time_to_first_token: float
    stop_reason: StopReason | None
    queue_time: float | None = 0.0
    is_over: bool = True


class Generation(Iterator[GenerationEvent], AsyncIterator[GenerationEvent]):
    """One running request: iterate it, with `for` or `async for`, for its events.

    Events are PromptProcessed, then TextDelta, ToolUseStart, ToolInputDelta and ToolUse, then Finished. EngineError is
    raised from the iteration when generation fails. `cancel()` may be called from any thread; it ends the iteration
    without Finished. A generation has one reader, on a thread or on an event loop. `progress()` may be called at any
    time, from any thread.
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

    def fail(self, error: Exception) -> None:
        """As `cancel`, and the iteration raises `error`, even where the engine hangs. For the reader's event loop."""
        self._events.put(error)
        self._cancel()
        self.wake()

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


def wake_readers(generations: Iterable[Generation]) -> None:
    """Tells each event loop, once, which of its generations have events."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Generation]] = {}
    for generation in generations:
        if generation.loop is not None:
            by_loop.setdefault(generation.loop, []).append(generation)
    for loop, waiting in by_loop.items():
        try:
            loop.call_soon_threadsafe(_wake_all, waiting)
        except RuntimeError:  # The loop is closed: nobody will read these any more.
            for generation in waiting:
                generation.cancel()


def _wake_all(generations: list[Generation]) -> None:
    for generation in generations:
        generation.wake()
