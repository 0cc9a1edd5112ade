"""One measurement of one engine: a JSON line in, a JSON line out. Needs NumPy alone."""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from peers.bandwidth import read_bandwidth

FIRST_TOKEN_ID = 300
WARMUP_PROMPT = 16


@dataclass(frozen=True)
class Job:
    """What to measure: `measure` is decode, prefill, streams or arrival.

    `model` is the Hugging Face directory, `weights` the file or directory in the engine's own format, `bits` those of
    a weight. `streams` are the numbers of prompts at once for streams; arrival takes the first, and `arriving_tokens`.
    """

    measure: str
    model: str
    weights: str
    bits: int
    threads: int
    vocab_size: int
    seed: int
    prompt_tokens: int
    new_tokens: int
    streams: tuple[int, ...] = ()
    arriving_tokens: int = 0

    def prompts(self, count: int, length: int, kind: str) -> list[list[int]]:
        """Random token ids, other ones for every `kind` and seed, so that no prefix cache finds them."""
        generator = random.Random(f"{self.seed} {kind}")
        return [[generator.randrange(FIRST_TOKEN_ID, self.vocab_size) for _ in range(length)] for _ in range(count)]


class Engine(Protocol):
    """An engine with its model loaded. Greedy, and nothing ends a generation but its length."""

    version: str
    weight_bytes: int

    def prefill(self, prompt: list[int]) -> float:
        """Seconds from a prompt to its first token."""
        ...

    def decode(self, prompts: Callable[[str], list[list[int]]], new_tokens: int) -> float:
        """Seconds in which each prompt gets `new_tokens` tokens after its first.

        `prompts` gives other prompts for every name, for engines that have to run more than once.
        """
        ...


class RunToCompletion:
    """Measures an engine that gives all tokens at once, through `run`: times are those of whole runs, or differ."""

    def run(self, prompts: list[list[int]], new_tokens: int) -> None:
        """Generate so many tokens greedily for each prompt, no fewer."""
        raise NotImplementedError

    def prefill(self, prompt: list[int]) -> float:
        started = time.perf_counter()
        self.run([prompt], 1)
        return time.perf_counter() - started

    def decode(self, prompts: Callable[[str], list[list[int]]], new_tokens: int) -> float:
        """The seconds of `new_tokens` + 1 tokens less those of the first."""
        first, all_tokens = prompts("first"), prompts("all")
        started = time.perf_counter()
        self.run(first, 1)
        between = time.perf_counter()
        self.run(all_tokens, new_tokens + 1)
        seconds = (time.perf_counter() - between) - (between - started)
        if seconds <= 0:
            raise RuntimeError(f"{new_tokens + 1} tokens took no longer than the first: ask for more")
        return seconds


def run_job(load: Callable[[Job], Engine]) -> None:
    """Read a job from standard input, and write its result to standard output as one line.

    What libraries print there goes to standard error instead.
    """
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    tree = json.loads(sys.stdin.readline())
    job = Job(**{**tree, "streams": tuple(tree["streams"])})
    started = time.perf_counter()
    engine = load(job)
    loaded = time.perf_counter() - started
    before = read_bandwidth(job.threads)
    found = _measure(engine, job)
    result = {
        "version": engine.version,
        "weight_bytes": engine.weight_bytes,
        "load_s": loaded,
        "read_bandwidth": max(before, read_bandwidth(job.threads)),
        **found,
    }
    answer.write(json.dumps(result) + "\n")
    answer.flush()
    # Some runtimes take long, or fail, to take their threads down.
    os._exit(0)


def write_job(job: Job) -> str:
    """The line that `run_job` reads."""
    return json.dumps(asdict(job)) + "\n"


def file_bytes(path: str | Path, *patterns: str) -> int:
    """The size of a file, or of the files of a directory that match a pattern."""
    path = Path(path)
    files = {file for pattern in patterns for file in path.glob(pattern)} if path.is_dir() else {path}
    return sum(file.stat().st_size for file in files)


def _measure(engine: Engine, job: Job) -> dict[str, Any]:
    def prompts(count: int, length: int, kind: str) -> Callable[[str], list[list[int]]]:
        return lambda name: job.prompts(count, length, f"{kind} {count} {name}")

    engine.prefill(prompts(1, WARMUP_PROMPT, "warm-up")("prefill")[0])
    engine.decode(prompts(1, WARMUP_PROMPT, "warm-up"), 3)
    if job.measure == "prefill":
        engine.prefill(prompts(1, job.prompt_tokens, "warm-up")("whole")[0])
        seconds = engine.prefill(prompts(1, job.prompt_tokens, "prefill")("")[0])
        return {"tokens_per_s": job.prompt_tokens / seconds}
    if job.measure == "decode":
        seconds = engine.decode(prompts(1, job.prompt_tokens, "decode"), job.new_tokens)
        return {"tokens_per_s": job.new_tokens / seconds}
    if job.measure == "streams":
        rates = {}
        for count in job.streams:
            seconds = engine.decode(prompts(count, job.prompt_tokens, "streams"), job.new_tokens)
            rates[str(count)] = count * job.new_tokens / seconds
        return {"streams": rates}
    return {"arrival": engine.arrival(job)}  # type: ignore[attr-defined]
