"""Draws pictures on behalf of HTTP requests: a queue, and a thread that draws one request after the other.

A job has the caller's end of a text generation's (`progress`, `cancel`, `fail`), so that what follows open requests
need not tell the two apart.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from starlette.types import Receive

from kilonova.core.errors import Cancelled, EngineError, KilonovaError, Overloaded
from kilonova.core.types import ServiceTier, StopReason, Usage
from kilonova.engine.generation import Progress
from kilonova.serve.generation import until_disconnect

if TYPE_CHECKING:
    import numpy as np

    from kilonova.studio.canvas import Canvas
    from kilonova.studio.tasks import ImageRequest, ImageResult

logger = logging.getLogger(__name__)

_TIERS: tuple[ServiceTier, ...] = ("priority", "default", "flex")
# Of the processors' time where they are short, text gets three quarters: answers are read as they come.
_NICENESS = 5
_CLOSING_SECONDS = 10.0
# Of the pictures that requests bring along and wait with: small files may hold large ones.
_MAX_WAITING_BYTES = 2**30


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StudioStats:
    """What a studio does now and did since its start."""

    running: int
    waiting: int
    steps: int
    step_seconds: float


class PictureJob:
    """One call's pictures on their way. Its methods, but for `begin` and `end`, belong to the caller's event loop."""

    def __init__(
        self, studio: Studio, requests: Sequence[ImageRequest], *, transparent: bool, tenant: str, tier: ServiceTier
    ) -> None:
        self.requests = requests
        self.bytes = sum(_bytes_in(request.task) for request in requests)
        self.transparent = transparent
        self.tenant = tenant
        self.rank = _TIERS.index(tier)
        self.is_cancelled = False
        self._studio = studio
        self._loop = asyncio.get_running_loop()
        self._results: asyncio.Future[list[ImageResult]] = self._loop.create_future()
        # Nobody may be left to ask for an error.
        self._results.add_done_callback(lambda results: results.cancelled() or results.exception())
        self._queued = time.perf_counter()
        self._queue_time: float | None = None
        self._is_over = False
        self._is_finished = False

    async def results(self) -> list[ImageResult]:
        """One result a request. Raises EngineError, what the studio finds wrong with it, and what it failed with."""
        return await self._results

    def progress(self) -> Progress:
        """Whether it waits, is being drawn, or is over; it has no tokens."""
        reason: StopReason | None = "end_turn" if self._is_finished else None
        return Progress(Usage(0, 0), 0.0, reason, self._queue_time, self._is_over)

    def cancel(self) -> None:
        """Stop before the next step and give up its place; harmless when it is over."""
        self._studio.cancel(self)

    def fail(self, error: Exception) -> None:
        """As `cancel`, and whoever waits for it gets `error` at once."""
        if not self._results.done():
            self._results.set_exception(error)
        self.cancel()

    def begin(self) -> None:
        """Studio's side: it is its turn."""
        self._queue_time = time.perf_counter() - self._queued

    def end(self, outcome: list[ImageResult] | Exception) -> None:
        """Studio's side, from any thread: nothing changes any more."""
        self._is_finished = not isinstance(outcome, Exception)
        self._is_over = True

        def tell() -> None:
            if self._results.done():
                return
            if isinstance(outcome, Exception):
                self._results.set_exception(outcome)
            else:
                self._results.set_result(outcome)

        with contextlib.suppress(RuntimeError):  # The loop is closed: nobody waits.
            self._loop.call_soon_threadsafe(tell)


class Studio:
    """One picture model and the thread that it draws on.

    Up to `max_queue` jobs wait. Those of a higher service tier go first, and within a tier those of the tenant that
    was served least recently.
    """

    def __init__(self, canvas: Canvas, *, max_queue: int) -> None:
        self._canvas = canvas
        self._max_queue = max_queue
        self._changed = threading.Condition()
        self._waiting: list[PictureJob] = []
        self._running: PictureJob | None = None
        self._is_closed = False
        self._turns = 0
        self._last_turns: dict[str, int] = {}
        self._steps = 0
        self._step_seconds = 0.0
        self._thread = threading.Thread(target=self._run, name="kilonova-studio", daemon=True)
        self._thread.start()

    @classmethod
    def open(cls, directory: Path, *, max_queue: int) -> Studio:
        """Load a folder of components; blocks meanwhile. Raises CheckpointError and ConfigError."""
        from kilonova.core.device import choose_device
        from kilonova.studio.loading import load_canvas

        return cls(load_canvas(directory, choose_device()), max_queue=max_queue)

    def submit(
        self,
        requests: Sequence[ImageRequest],
        *,
        transparent: bool = False,
        tenant: str = "",
        tier: ServiceTier = "default",
    ) -> PictureJob:
        """Queue a job; `transparent` cuts out what stands in the foreground. Raises Overloaded."""
        job = PictureJob(self, requests, transparent=transparent, tenant=tenant, tier=tier)
        with self._changed:
            if self._is_closed:
                raise EngineError("the studio is closed")
            # A job that can begin at once does not wait.
            if len(self._waiting) >= self._max_queue + (self._running is None):
                raise Overloaded(f"{len(self._waiting)} requests for pictures are waiting; try again later")
            if self._waiting and sum(each.bytes for each in (*self._waiting, job)) > _MAX_WAITING_BYTES:
                raise Overloaded("the pictures that wait to be edited are too large together; try again later")
            self._waiting.append(job)
            self._changed.notify()
        return job

    def cancel(self, job: PictureJob) -> None:
        """As `PictureJob.cancel`."""
        job.is_cancelled = True
        with self._changed:
            if job not in self._waiting:
                return
            self._waiting.remove(job)
        job.end(_cancelled())

    def stats(self) -> StudioStats:
        """May be called from any thread."""
        with self._changed:
            running = int(self._running is not None)
            return StudioStats(
                running=running, waiting=len(self._waiting), steps=self._steps, step_seconds=self._step_seconds
            )

    def close(self) -> None:
        """Cancel everything and end the thread."""
        with self._changed:
            self._is_closed = True
            jobs = [*self._waiting, *([self._running] if self._running is not None else [])]
            self._changed.notify()
        for job in jobs:
            self.cancel(job)
        self._thread.join(_CLOSING_SECONDS)

    def _run(self) -> None:
        _share_processors()
        while (job := self._take()) is not None:
            job.begin()
            try:
                outcome: list[ImageResult] | Exception = self._draw(job)
            except Cancelled:
                outcome = _cancelled()
            except KilonovaError as error:
                outcome = error
            except Exception as error:
                outcome = EngineError("drawing failed")
                outcome.__cause__ = error
            with self._changed:
                self._running = None
            job.end(outcome)

    def _take(self) -> PictureJob | None:
        """The job whose turn it is; None when the studio is closed."""
        with self._changed:
            while not self._waiting and not self._is_closed:
                self._changed.wait()
            if self._is_closed:
                return None
            job = min(self._waiting, key=lambda job: (job.rank, self._last_turns.get(job.tenant, 0)))
            self._waiting.remove(job)
            self._turns += 1
            self._last_turns[job.tenant] = self._turns
            self._running = job
            return job

    def _draw(self, job: PictureJob) -> list[ImageResult]:
        return [self._draw_one(job, request) for request in job.requests]

    def _draw_one(self, job: PictureJob, request: ImageRequest) -> ImageResult:
        last = time.perf_counter()

        def on_step(done: int, total: int) -> bool:
            nonlocal last
            now = time.perf_counter()
            self._steps += 1
            self._step_seconds += now - last
            last = now
            return not job.is_cancelled

        if job.is_cancelled:
            raise _cancelled()
        result = self._canvas.generate(request, on_step)
        if not job.transparent:
            return result

        from kilonova.studio.tasks import BackgroundRemoval, ImageRequest

        cut_out: list[np.ndarray] = []
        for image in result.images:
            cut_out += self._canvas.generate(ImageRequest(task=BackgroundRemoval(image=image)), on_step).images
        return dataclasses.replace(result, images=tuple(cut_out))


async def drawn(receive: Receive, job: PictureJob) -> list[ImageResult]:
    """The results of `job`, which is cancelled as soon as the client goes; raises ClientDisconnected then."""
    try:
        return await until_disconnect(receive, job.results())
    finally:
        job.cancel()


def _bytes_in(value: Any) -> int:
    """The memory of the pictures in a task."""
    if dataclasses.is_dataclass(value):
        return sum(_bytes_in(getattr(value, field.name)) for field in dataclasses.fields(value))
    if isinstance(value, tuple):
        return sum(map(_bytes_in, value))
    return getattr(value, "nbytes", 0)


def _cancelled() -> EngineError:
    return EngineError("the request was cancelled")


def _share_processors() -> None:
    """Lets this thread, and those that compute for it, take part of the processors' time."""
    import torch

    num_threads = psutil.cpu_count(logical=False) or 1
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            # Elsewhere priorities are those of whole processes.
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
        num_threads = min(num_threads, len(os.sched_getaffinity(0)))
    # A new thread has as many as the thread that set them last, which a text engine does for every step.
    asked = os.environ.get("OMP_NUM_THREADS", "")
    torch.set_num_threads(int(asked) if asked.isdecimal() and int(asked) else num_threads)
