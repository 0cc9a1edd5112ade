"""The same requests to an engine in a process of its own, with nothing between."""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from load.requests import TEMPERATURE, TOP_P, plans

if TYPE_CHECKING:
    from kilonova.engine.engine import Engine


class BareEngine:
    """The caller's end of the process."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def run(self, clients: int, seconds: float, seed: int) -> dict[str, Any]:
        """Tokens, seconds, steps' seconds and CPU seconds of one round."""
        self._connection.send((clients, seconds, seed))
        return self._connection.recv()


@contextmanager
def bare_engine(directory: Path, max_num_seqs: int) -> Iterator[BareEngine]:
    """An engine of the checkpoint, ready."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, str(directory), max_num_seqs), daemon=True)
    process.start()
    try:
        ours.recv()
        yield BareEngine(ours)
    finally:
        ours.send(None)
        process.join(timeout=30)


def _serve(connection: Connection, directory: str, max_num_seqs: int) -> None:
    from kilonova.engine.config import EngineConfig
    from kilonova.engine.engine import Engine

    engine = Engine.from_directory(directory, EngineConfig(max_num_seqs=max_num_seqs, max_queue=10_000))
    connection.send("ready")
    while (work := connection.recv()) is not None:
        connection.send(asyncio.run(_run(engine, *work)))
    engine.close()


async def _run(engine: Engine, clients: int, seconds: float, seed: int) -> dict[str, Any]:
    tokens = 0
    before, cpu, start = engine.stats(), time.process_time(), time.perf_counter()

    async def client(index: int) -> None:
        nonlocal tokens
        for plan in plans(seed, index):
            if time.perf_counter() - start >= seconds:
                return
            generation = engine.submit(_to_request(plan.prompt, plan.max_tokens))
            pieces = 0
            async for _ in generation:
                pieces += 1
                if plan.leaves_after is not None and pieces > plan.leaves_after:
                    generation.cancel()
                    break
            tokens += generation.progress().usage.output_tokens

    await asyncio.gather(*(client(index) for index in range(clients)))
    after = engine.stats()
    return {
        "tokens": tokens,
        "seconds": time.perf_counter() - start,
        "step_seconds": after.step_seconds - before.step_seconds,
        "cpu_seconds": time.process_time() - cpu,
    }


def _to_request(prompt: str, max_tokens: int) -> Any:
    from kilonova.core.types import GenerationRequest, Message, SamplingParams, TextBlock

    return GenerationRequest(
        model="bare",
        messages=(Message("user", (TextBlock(prompt),)),),
        sampling=SamplingParams(max_tokens=max_tokens, temperature=TEMPERATURE, top_p=TOP_P),
    )
