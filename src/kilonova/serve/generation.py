"""Runs a generation on behalf of one HTTP request: submits it, follows its events, and stops it with its client."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from kilonova.core.errors import ContextLengthExceeded, EngineError
from kilonova.core.types import (
    Finished,
    GenerationEvent,
    GenerationRequest,
    PromptProcessed,
    TextBlock,
    TextDelta,
    TokenLogprob,
    ToolResultBlock,
    ToolUse,
    ToolUseBlock,
)
from kilonova.serve.call import scope_call

if TYPE_CHECKING:
    from kilonova.engine.engine import Engine, Generation

T = TypeVar("T")

_TOKENISE_ON_A_THREAD_FROM = 16_384


class ClientDisconnected(Exception):
    """The client went away before its answer was complete."""


async def until_disconnect(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled as soon as the client goes; raises ClientDisconnected then.

    The request's body must have been read to its end.
    """

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    working, watching = asyncio.ensure_future(work), asyncio.ensure_future(watch())
    try:
        await asyncio.wait((working, watching), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            working.cancel()
            await asyncio.wait((working,))
        if working.cancelled():
            raise ClientDisconnected
        return working.result()
    finally:
        working.cancel()
        watching.cancel()
        await asyncio.wait((working, watching))


async def submit(engine: Engine, request: GenerationRequest, *, shorten: bool) -> Generation:
    """Queues a request; a long prompt is tokenised and a grammar compiled on a thread, to hold up no other client.

    With `shorten`, a `max_tokens` that does not fit beside the prompt becomes what the context still holds.
    Raises what `Engine.submit` raises.
    """
    has_grammar = bool(request.tools) or request.grammar is not None
    if not has_grammar and _text_length(request) < _TOKENISE_ON_A_THREAD_FROM:
        return _submit(engine, request, shorten)
    submitting = asyncio.ensure_future(asyncio.to_thread(_submit, engine, request, shorten))
    try:
        return await asyncio.shield(submitting)
    except asyncio.CancelledError:
        submitting.add_done_callback(_cancel_generation)
        raise


def _submit(engine: Engine, request: GenerationRequest, shorten: bool) -> Generation:
    try:
        return engine.submit(request)
    except ContextLengthExceeded:
        if not shorten or request.sampling.max_tokens is None:
            raise
        unbounded = dataclasses.replace(request.sampling, max_tokens=None)
        return engine.submit(dataclasses.replace(request, sampling=unbounded))


def _cancel_generation(submitting: asyncio.Future[Generation]) -> None:
    if not submitting.cancelled() and submitting.exception() is None:
        submitting.result().cancel()


async def count_tokens(engine: Engine, request: GenerationRequest) -> int:
    """The input tokens `request` would be billed for."""
    if _text_length(request) < _TOKENISE_ON_A_THREAD_FROM:
        return engine.count_tokens(request)
    return await asyncio.to_thread(engine.count_tokens, request)


def _text_length(request: GenerationRequest) -> int:
    length = len(request.prompt) if request.prompt is not None else 0
    for message in request.messages:
        for block in message.content:
            if isinstance(block, TextBlock):
                length += len(block.text)
            elif isinstance(block, ToolResultBlock):
                length += sum(len(part.text) for part in block.content if isinstance(part, TextBlock))
    return length


async def submit_all(engine: Engine, requests: Sequence[GenerationRequest], *, shorten: bool) -> list[Generation]:
    """Queues every request as `submit` does, or none: when one is refused, those before it are cancelled."""
    generations: list[Generation] = []
    try:
        for request in requests:
            generations.append(await submit(engine, request, shorten=shorten))  # noqa: PERF401
    except BaseException:
        for generation in generations:
            generation.cancel()
        raise
    return generations


async def follow(generations: Sequence[Generation]) -> AsyncGenerator[tuple[int, GenerationEvent], None]:
    """The events of several generations as they come, each with its generation's index.

    Those that have not finished are cancelled when one fails or the reader stops early.
    """
    unfinished = dict(enumerate(generations))
    try:
        async with contextlib.aclosing(_merge(generations)) as events:
            async for index, event in events:
                if isinstance(event, Finished):
                    del unfinished[index]
                yield index, event
    finally:
        for generation in unfinished.values():
            generation.cancel()


async def _merge(generations: Sequence[Generation]) -> AsyncGenerator[tuple[int, GenerationEvent], None]:
    if len(generations) == 1:
        async for event in generations[0]:
            yield 0, event
        return
    queue: asyncio.Queue[tuple[int, GenerationEvent | Exception | None]] = asyncio.Queue()

    async def pump(index: int, generation: Generation) -> None:
        try:
            async for event in generation:
                queue.put_nowait((index, event))
            queue.put_nowait((index, None))
        except Exception as error:
            queue.put_nowait((index, error))

    pumps = [asyncio.ensure_future(pump(index, generation)) for index, generation in enumerate(generations)]
    try:
        open_count = len(pumps)
        while open_count:
            index, item = await queue.get()
            if isinstance(item, Exception):
                raise item
            if item is None:
                open_count -= 1
            else:
                yield index, item
    finally:
        for task in pumps:
            task.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


async def begin(
    receive: Receive, generations: Sequence[Generation]
) -> tuple[tuple[int, GenerationEvent], AsyncGenerator[tuple[int, GenerationEvent], None]]:
    """The first of the generations' events and the reader of the rest, so that early faults get a status of their own.

    Raises ClientDisconnected when the client goes before it, and whatever the generations raise.
    """
    events = follow(generations)
    try:
        return await until_disconnect(receive, _next(events)), events
    except BaseException:
        for generation in generations:
            generation.cancel()
        raise


async def _next(events: AsyncGenerator[tuple[int, GenerationEvent], None]) -> tuple[int, GenerationEvent]:
    try:
        return await anext(events)
    except StopAsyncIteration:
        raise EngineError("the generation ended before its first event") from None


@dataclasses.dataclass(slots=True)
class Answer:
    """A whole generation: its content in order, and the log-probabilities of its text where they were asked for."""

    prompt: PromptProcessed
    finished: Finished
    content: list[TextBlock | ToolUseBlock]
    logprobs: list[TokenLogprob]

    @property
    def text(self) -> str:
        """The text blocks, joined."""
        return "".join(block.text for block in self.content if isinstance(block, TextBlock))

    @property
    def tool_uses(self) -> list[ToolUseBlock]:
        """The tool calls, in order."""
        return [block for block in self.content if isinstance(block, ToolUseBlock)]


class _AnswerBuilder:
    def __init__(self) -> None:
        self.prompt: PromptProcessed | None = None
        self.finished: Finished | None = None
        self.content: list[TextBlock | ToolUseBlock] = []
        self.texts: list[str] = []
        self.logprobs: list[TokenLogprob] = []

    def add(self, event: GenerationEvent) -> None:
        if isinstance(event, TextDelta):
            self.logprobs.extend(event.logprobs)
            self.texts.append(event.text)
        elif isinstance(event, ToolUse):
            self._close_text()
            self.content.append(event.block)
        elif isinstance(event, PromptProcessed):
            self.prompt = event
        elif isinstance(event, Finished):
            self.finished = event

    def _close_text(self) -> None:
        text = "".join(self.texts)
        if text:
            self.content.append(TextBlock(text))
        self.texts.clear()

    def answer(self) -> Answer:
        self._close_text()
        if self.prompt is None or self.finished is None:
            raise EngineError("the generation ended before its last event")
        return Answer(self.prompt, self.finished, self.content, self.logprobs)


async def collect(generations: Sequence[Generation]) -> list[Answer]:
    """Reads generations to their ends; raises EngineError when one has none."""
    builders = [_AnswerBuilder() for _ in generations]
    async with contextlib.aclosing(follow(generations)) as events:
        async for index, event in events:
            builders[index].add(event)
    return [builder.answer() for builder in builders]


class StreamedResponse(Response):
    """A response sent chunk by chunk; `chunks` and its `sources` are closed when the stream ends or the client goes."""

    def __init__(
        self,
        chunks: AsyncGenerator[bytes, None],
        sources: Sequence[AsyncGenerator[Any, None]],
        *,
        media_type: str,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.chunks = chunks
        self.sources = sources
        self.status_code = 200
        self.background = None
        self.init_headers({"content-type": media_type, **(headers or {})})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = scope_call(scope)
        try:
            await until_disconnect(receive, self._write(send, call.observe_chunk))
        except ClientDisconnected:
            call.is_abandoned = True

    async def _write(self, send: Send, observe: Callable[[float], None] | None) -> None:
        async with contextlib.AsyncExitStack() as closing:
            for source in self.sources:
                await closing.enter_async_context(contextlib.aclosing(source))
            await closing.enter_async_context(contextlib.aclosing(self.chunks))
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            last = 0.0
            async for chunk in self.chunks:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
                now = time.perf_counter()
                if last and observe is not None:
                    observe(now - last)
                last = now
            await send({"type": "http.response.body", "body": b"", "more_body": False})
