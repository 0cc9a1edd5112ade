"""A closed loop of requests at several numbers of clients, over one endpoint or several taking turns."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from kilonova.core.errors import ConfigError, ModelNotFound
from kilonova.core.progress import ProgressReporter
from kilonova.core.types import Message, TextBlock
from kilonova.evals.latency.endpoint import Endpoint, EndpointError, Reply, RequestRefused
from kilonova.evals.latency.prompts import PromptBuilder
from kilonova.text.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class LoadConfig:
    """What is asked, and how often.

    At each of `concurrency` so many clients send a request each, and the next as soon as theirs is answered, until
    there were `requests` (never fewer than clients). `warmup` requests before each measurement are not counted. All
    of it happens `repeats` times; equal seeds give equal prompts.
    """

    concurrency: tuple[int, ...] = (1, 2, 4, 8)
    requests: int = 16
    input_tokens: int = 1000
    output_tokens: int = 100
    warmup: int = 1
    repeats: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("requests", 1), ("input_tokens", 1), ("output_tokens", 2), ("warmup", 0), ("repeats", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name}: must be at least {least}, not {getattr(self, name)}")
        if not self.concurrency or min(self.concurrency) < 1 or len(set(self.concurrency)) < len(self.concurrency):
            raise ConfigError(f"concurrency: different numbers from 1 on are expected, not {self.concurrency}")

    def num_requests(self, concurrency: int) -> int:
        """How many requests one measurement at this number of clients counts."""
        return max(self.requests, concurrency)


@dataclass(frozen=True)
class Target:
    """An endpoint under a name. `price_per_hour` is what its machine costs, in any currency.

    With a `tokenizer` tokens are counted here, where the endpoint does not report them. `is_chat` says that the
    prompt becomes the turn of a conversation.
    """

    name: str
    protocol: str
    url: str
    model: str
    endpoint: Endpoint
    price_per_hour: float | None = None
    tokenizer: Tokenizer | None = None
    is_chat: bool = False


@dataclass(frozen=True)
class Run:
    """The replies to one measurement's requests, the messages of those refused, and the seconds it took in all."""

    concurrency: int
    replies: tuple[Reply, ...]
    refusals: tuple[str, ...]
    seconds: float


@dataclass
class Measured:
    """All runs of one target by concurrency, one for each repeat, and who counted its tokens."""

    target: Target
    counted_by: str
    prompts: PromptBuilder
    runs: dict[int, list[Run]] = field(default_factory=dict)


async def measure(targets: Sequence[Target], config: LoadConfig, *, quiet: bool = False) -> list[Measured]:
    """Measure the targets, taking turns at every concurrency of every repeat, each first in every second repeat.

    Closes the endpoints at the end. Raises EndpointError or ModelNotFound where one cannot be measured.
    """
    try:
        measured = [await _prepare(target) for target in targets]
        for one in measured:
            one.prompts.build(config.input_tokens, "")
        turns = [
            (repeat, concurrency, one)
            for repeat in range(config.repeats)
            for concurrency in config.concurrency
            for one in (measured if repeat % 2 == 0 else measured[::-1])
        ]
        total = sum(config.num_requests(concurrency) for _, concurrency, _ in turns)
        with ProgressReporter("requests", total, quiet=quiet) as progress:
            done = 0
            for repeat, concurrency, one in turns:
                run = await _run(one, config, repeat, concurrency)
                one.runs.setdefault(concurrency, []).append(run)
                done += config.num_requests(concurrency)
                progress.update(done, f"{one.target.name}, {concurrency} at a time")
        return measured
    finally:
        await asyncio.gather(*(target.endpoint.close() for target in targets))


async def _prepare(target: Target) -> Measured:
    """Find out who counts tokens, and what words cost."""
    counted_by = "usage"

    async def count(text: str) -> int:
        nonlocal counted_by
        if counted_by == "usage":
            reported = (await target.endpoint.ask(text, 1)).input_tokens
            if reported is not None:
                return reported
            if target.tokenizer is None:
                raise EndpointError(f"{target.name} reports no usage: name a directory with --tokenizer to count with")
            counted_by = "tokenizer"
        assert target.tokenizer is not None
        if target.is_chat:
            return len(target.tokenizer.encode_chat([Message("user", (TextBlock(text),))]))
        return len(target.tokenizer.encode(text))

    try:
        prompts = await PromptBuilder.measure(count)
    except RequestRefused as error:
        raise EndpointError(str(error)) from error
    return Measured(target, counted_by, prompts)


async def _run(measured: Measured, config: LoadConfig, repeat: int, concurrency: int) -> Run:
    endpoint, builder = measured.target.endpoint, measured.prompts
    count = config.num_requests(concurrency)

    def prompts(kind: str, count: int) -> Iterator[str]:
        for index in range(count):
            # The name is in the seed: endpoints before one server must not find each other's prompts in its cache.
            seed = f"{config.seed} {measured.target.name} {repeat} {concurrency} {kind} {index}"
            yield builder.build(config.input_tokens, seed)

    await _ask_all(endpoint, list(prompts("warmup", config.warmup)), config.output_tokens, concurrency)
    run = await _ask_all(endpoint, list(prompts("measured", count)), config.output_tokens, concurrency)
    if not run.replies:
        raise EndpointError(f"{measured.target.name} refused all {count} requests: {run.refusals[-1]}")
    if measured.counted_by == "usage":
        return run
    replies = [_count_tokens(measured.target, reply, config.input_tokens) for reply in run.replies]
    return Run(concurrency, tuple(replies), run.refusals, run.seconds)


def _count_tokens(target: Target, reply: Reply, input_tokens: int) -> Reply:
    assert target.tokenizer is not None
    output_tokens = len(target.tokenizer.encode(reply.text))
    return Reply(reply.arrivals, reply.total, reply.text, input_tokens, output_tokens)


async def _ask_all(endpoint: Endpoint, prompts: Sequence[str], max_tokens: int, concurrency: int) -> Run:
    """Every prompt once, `concurrency` at a time."""
    replies: list[Reply] = []
    refusals: list[str] = []
    waiting = iter(prompts)

    async def client() -> None:
        for prompt in waiting:
            try:
                replies.append(await endpoint.ask(prompt, max_tokens))
            except RequestRefused as error:
                refusals.append(str(error))

    started = time.perf_counter()
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(client())
    except ExceptionGroup as errors:
        expected = [error for error in errors.exceptions if isinstance(error, (EndpointError, ModelNotFound))]
        if not expected:
            raise
        done = f" ({len(replies)} of {len(prompts)} requests had been answered)"
        raise type(expected[0])(f"{expected[0]}{done}") from expected[0]
    return Run(concurrency, tuple(replies), tuple(refusals), time.perf_counter() - started)
