"""The queue of pictures and its thread, with a canvas that draws when it is told to."""

import asyncio
import threading
import time

import numpy as np
import pytest

from kilonova.core.errors import EngineError, InvalidRequest, Overloaded
from kilonova.serve.call import Call
from kilonova.serve.generation import ClientDisconnected
from kilonova.serve.lifecycle import Lifecycle
from kilonova.serve.picture_store import KEEP_SECONDS, PictureStore
from kilonova.serve.pictures import Studio, drawn
from kilonova.serve.settings import LimitsSection
from kilonova.studio.tasks import BackgroundRemoval, ImageRequest, ImageResult, ImageVariation, TextToImage


class Easel:
    """Draws the next request when `next` is released, in two steps, and remembers whose turn it was."""

    def __init__(self):
        self.next = threading.Semaphore(0)
        self.drawn = []
        self.given_up = []

    def generate(self, request, on_step):
        if isinstance(request.task, BackgroundRemoval):
            cut_out = np.dstack((request.task.image, request.task.image[..., 0]))
            return ImageResult(images=(cut_out,), native_size=(8, 8), num_inference_steps=0, seed=0)
        text = request.task.text
        self.drawn.append(text)
        assert self.next.acquire(timeout=10)
        if not on_step(1, 2):
            self.given_up.append(text)
            raise RuntimeError("given up")
        if text == "fault":
            raise ZeroDivisionError("a fault in the model")
        if text == "refused":
            raise InvalidRequest("no", field="mask")
        image = np.full((8, 8, 3), 200, np.uint8)
        return ImageResult(images=(image,), native_size=(8, 8), num_inference_steps=2, seed=request.seed)


def ask(text):
    return [ImageRequest(task=TextToImage(text=text), width=8, height=8)]


@pytest.fixture
def easel():
    return Easel()


def play(easel, script, max_queue=8):
    async def run():
        studio = Studio(easel, max_queue=max_queue)
        try:
            return await asyncio.wait_for(script(studio), 20)
        finally:
            easel.next.release(50)
            await asyncio.to_thread(studio.close)

    return asyncio.run(run())


async def begun(easel, count):
    while len(easel.drawn) < count:
        await asyncio.sleep(0.002)


def test_tiers_go_first_and_tenants_take_turns(easel):
    async def script(studio):
        jobs = [studio.submit(ask("first"))]
        await begun(easel, 1)
        for text, tenant, tier in (
            ("a1", "a", "default"),
            ("a2", "a", "default"),
            ("a3", "a", "default"),
            ("b1", "b", "default"),
            ("cheap", "c", "flex"),
            ("b2", "b", "default"),
            ("urgent", "a", "priority"),
        ):
            jobs.append(studio.submit(ask(text), tenant=tenant, tier=tier))
        assert (studio.stats().running, studio.stats().waiting) == (1, 7)
        assert jobs[0].progress().queue_time is not None
        assert jobs[1].progress().queue_time is None
        easel.next.release(8)
        await asyncio.gather(*(job.results() for job in jobs))
        assert all(job.progress().stop_reason == "end_turn" and job.progress().is_over for job in jobs)
        assert studio.stats().steps == 8

    play(easel, script)
    assert easel.drawn == ["first", "urgent", "b1", "a1", "b2", "a2", "a3", "cheap"]


def test_a_full_queue(easel):
    async def script(studio):
        studio.submit(ask("runs"))
        await begun(easel, 1)
        studio.submit(ask("waits"))
        with pytest.raises(Overloaded, match="1 requests for pictures"):
            studio.submit(ask("too many"))

    play(easel, script, max_queue=1)


def test_large_pictures_that_wait(easel, monkeypatch):
    monkeypatch.setattr("kilonova.serve.pictures._MAX_WAITING_BYTES", 1000)
    variation = ImageVariation(images=(np.zeros((16, 16, 3), np.uint8),) * 2)

    async def script(studio):
        studio.submit(ask("runs"))
        await begun(easel, 1)
        waiting = studio.submit([ImageRequest(task=variation, width=16, height=16)])
        assert waiting.bytes == 2 * 16 * 16 * 3
        with pytest.raises(Overloaded, match="too large together"):
            studio.submit([ImageRequest(task=variation, width=16, height=16)])
        waiting.cancel()

    play(easel, script)


def test_what_is_cancelled_stops_at_its_next_step_or_never_begins(easel):
    async def script(studio):
        running, waiting, kept = studio.submit(ask("runs")), studio.submit(ask("waits")), studio.submit(ask("kept"))
        await begun(easel, 1)
        waiting.cancel()
        assert waiting.progress().is_over
        running.fail(TimeoutError("too long"))
        with pytest.raises(TimeoutError):
            await running.results()
        assert not running.progress().is_over
        easel.next.release(2)
        await kept.results()
        assert running.progress().is_over
        assert running.progress().stop_reason is None

    play(easel, script)
    assert (easel.drawn, easel.given_up) == (["runs", "kept"], ["runs"])


def test_it_ends_with_its_client_and_after_its_time(easel):
    async def script(studio):
        gone = asyncio.Event()

        async def receive():
            await gone.wait()
            return {"type": "http.disconnect"}

        job = studio.submit(ask("left"))
        reading = asyncio.ensure_future(drawn(receive, job))
        await begun(easel, 1)
        call = Call(id="late", started=time.perf_counter(), submitted=time.perf_counter() - 5)
        call.operation = "InvokeModel"
        call.generations.append(studio.submit(ask("late")))
        lifecycle = Lifecycle(LimitsSection(queue_seconds=1.0))
        lifecycle.enter(call)
        lifecycle.check(time.perf_counter())
        with pytest.raises(Overloaded, match="waited longer"):
            await call.generations[0].results()
        gone.set()
        with pytest.raises(ClientDisconnected):
            await reading
        easel.next.release(1)

    play(easel, script)
    assert (easel.drawn, easel.given_up) == (["left"], ["left"])


def test_faults_reach_their_callers_and_the_thread_goes_on(easel):
    async def script(studio):
        easel.next.release(3)
        jobs = [studio.submit(ask(text)) for text in ("fault", "refused", "fine")]
        with pytest.raises(EngineError, match="drawing failed") as caught:
            await jobs[0].results()
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
        with pytest.raises(InvalidRequest, match="no"):
            await jobs[1].results()
        assert len(await jobs[2].results()) == 1

    play(easel, script)


def test_transparent_pictures_are_cut_out(easel):
    async def script(studio):
        easel.next.release(1)
        (result,) = await studio.submit(ask("cut out"), transparent=True).results()
        assert result.images[0].shape == (8, 8, 4)
        assert result.num_inference_steps == 2

    play(easel, script)


def test_closing_ends_every_job(easel):
    async def script(studio):
        jobs = [studio.submit(ask("runs")), studio.submit(ask("waits"))]
        await begun(easel, 1)
        closing = asyncio.ensure_future(asyncio.to_thread(studio.close))
        while studio.stats().waiting:
            await asyncio.sleep(0.002)
        easel.next.release(1)
        for job in jobs:
            with pytest.raises(EngineError):
                await job.results()
        await closing

    play(easel, script)
    assert easel.given_up == ["runs"]


def test_stored_pictures_go_with_time_and_for_want_of_room():
    now = 0.0
    store = PictureStore(max_bytes=10, clock=lambda: now)
    first, second = store.add(b"12345", "png"), store.add(b"12345", "webp")
    assert store.get(first).data == b"12345"
    assert store.get(second).media_type == "image/webp"
    third = store.add(b"1", "png")
    assert store.get(first) is None
    now = KEEP_SECONDS
    assert store.get(second) is None
    assert store.get(third) is None
    assert store.get(store.add(bytes(11), "png")).data == bytes(11)
