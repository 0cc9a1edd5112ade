"""Kilonova's engine, in process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
import torch

import kilonova
from kilonova.core.types import Finished, GenerationRequest, SamplingParams, TextDelta
from kilonova.engine.config import EngineConfig
from kilonova.engine.engine import Engine
from kilonova.engine.generation import Generation
from peers.job import Job, run_job

# Tokens of every running stream before the long prompt arrives, and that its prompt and first tokens may take.
BEFORE, AFTER = 64, 192
DTYPES = {16: "bfloat16", 32: "float32"}


class KilonovaEngine:
    """The engine over a directory, whose weights may be quantised."""

    def __init__(self, job: Job) -> None:
        torch.set_num_threads(job.threads)
        self.version = kilonova.__version__
        # Random weights soon repeat themselves, so that guesses would always be right.
        config = EngineConfig(max_num_seqs=64, speculate=False)
        self.engine = Engine.from_directory(job.weights, config, dtype=DTYPES.get(job.bits, "auto"))
        self.weight_bytes = self.engine.weight_bytes

    def prefill(self, prompt: list[int]) -> float:
        return self._submit([prompt], 1)[0][-1].time_to_first_token

    def decode(self, prompts: Callable[[str], list[list[int]]], new_tokens: int) -> float:
        first = prompts("all")
        if len(first) == 1:
            finished = self._submit(first, new_tokens + 1)[0][-1]
            return finished.latency - finished.time_to_first_token
        # Streams get their first tokens one after the other: only the whole can be compared with the whole.
        alone = max(events[-1].latency for events in self._submit(prompts("first"), 1))
        return max(events[-1].latency for events in self._submit(first, new_tokens + 1)) - alone

    def arrival(self, job: Job) -> dict[str, float]:
        """Inter-token times of running streams before, and from the moment a long prompt arrives to its first token.

        The p95 of each in ms, their ratio, and the time to the first token of the prompt that arrives.
        """
        times: list[list[float]] = [[] for _ in range(job.streams[0])]
        running = [
            self.engine.submit(request(prompt, BEFORE + AFTER))
            for prompt in job.prompts(job.streams[0], job.prompt_tokens, "arrival")
        ]
        readers = [
            threading.Thread(target=_note_times, args=(generation, noted))
            for generation, noted in zip(running, times, strict=True)
        ]
        for reader in readers:
            reader.start()
        while min(len(noted) for noted in times) < BEFORE:
            time.sleep(0.001)
        (long_prompt,) = job.prompts(1, job.arriving_tokens, "arriving")
        arrived = time.perf_counter()
        finished = next(e for e in self.engine.submit(request(long_prompt, 1)) if isinstance(e, Finished))
        answered = arrived + finished.time_to_first_token
        for generation, reader in zip(running, readers, strict=True):
            generation.cancel()
            reader.join()
        # The streams run together from the moment that the last of them has its first token.
        together = max(noted[0] for noted in times)
        before = _gaps(times, together, arrived)
        during = _gaps(times, arrived, answered)
        if not len(during):
            raise RuntimeError("no stream got a token while the prompt was processed")
        p95_before, p95_during = np.percentile(before, 95), np.percentile(during, 95)
        return {
            "before_p95_ms": 1000 * float(p95_before),
            "during_p95_ms": 1000 * float(p95_during),
            "ratio": float(p95_during / p95_before),
            "first_token_ms": 1000 * finished.time_to_first_token,
        }

    def _submit(self, prompts: list[list[int]], new_tokens: int) -> list[list[Finished]]:
        generations = [self.engine.submit(request(prompt, new_tokens)) for prompt in prompts]
        return [[event for event in generation if isinstance(event, Finished)] for generation in generations]


def request(prompt: list[int], new_tokens: int) -> GenerationRequest:
    """Greedy, to the last of the tokens asked for."""
    sampling = SamplingParams(temperature=0, max_tokens=new_tokens, ignore_eos=True)
    return GenerationRequest(model="benchmark", prompt=tuple(prompt), sampling=sampling)


def _note_times(generation: Generation, times: list[float]) -> None:
    times.extend(time.perf_counter() for event in generation if isinstance(event, TextDelta))


def _gaps(times: list[list[float]], start: float, end: float) -> np.ndarray:
    """Times between neighbouring tokens of a stream, of those that arrived from `start` to `end`."""
    return np.concatenate(
        [
            gaps[(arrivals[1:] > start) & (arrivals[:-1] < end)]
            for noted in times
            for arrivals in [np.array(noted)]
            for gaps in [np.diff(arrivals)]
        ]
    )


if __name__ == "__main__":
    run_job(KilonovaEngine)
