"""Serves one decoder to many requests at once."""

from __future__ import annotations

import asyncio
import atexit
import logging
import secrets
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from kilonova.core.device import choose_device, choose_dtype
from kilonova.core.errors import (
    CheckpointError,
    ConfigError,
    ContextLengthExceeded,
    EngineError,
    InvalidRequest,
    Overloaded,
)
from kilonova.core.types import Finished, GenerationRequest, PromptProcessed, StopReason, TokenLogprob, Usage
from kilonova.engine.generation import Generation
from kilonova.engine.output import OutputStream, to_token_logprob
from kilonova.engine.runner import ModelRunner, StepTokens
from kilonova.engine.sampling import RawLogprob, logprobs, sample
from kilonova.engine.scheduler import Chunk, Scheduler, Sequence
from kilonova.engine.threads import StepThreads
from kilonova.engine.validation import check_request
from kilonova.models.checkpoint import load_decoder
from kilonova.models.decoder.model import Decoder
from kilonova.text.tokenizer import Tokenizer

__all__ = ["Engine", "EngineStats", "Generation"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Requests that run and that wait for a place, and cache positions in use."""

    running: int
    waiting: int
    kv_tokens: int


@dataclass(eq=False, slots=True, kw_only=True)
class _Request(Sequence):
    """A sequence with the limits and the output of its request. Times are `time.perf_counter()` seconds."""

    output: OutputStream
    generation: Generation = field(init=False)
    max_tokens: int | None
    arrived: float
    first_token: float = 0.0
    prompt_logprobs: list[RawLogprob] = field(default_factory=list)
    is_over: bool = False


class Engine:
    """Serves one decoder: a thread steps all running requests together (continuous batching).

    Up to `max_num_seqs` requests run, and up to `max_queue` more wait. `max_context` lowers the context below the
    model's own. All methods may be called from any thread. The engine lives until `close()`, or the process's end.
    Raises ConfigError for a limit below its least value, CheckpointError when model and tokenizer do not fit.
    """

    def __init__(
        self,
        model: Decoder,
        tokenizer: Tokenizer,
        *,
        max_num_seqs: int = 32,
        max_context: int | None = None,
        max_queue: int = 256,
    ) -> None:
        for name, value, least in (
            ("max_num_seqs", max_num_seqs, 1),
            ("max_context", max_context, 1),
            ("max_queue", max_queue, 0),
        ):
            if value is not None and value < least:
                raise ConfigError(f"{name}: must be at least {least}; it is {value}")
        if tokenizer.vocab_size > model.config.vocab_size:
            raise CheckpointError(
                f"the tokenizer has {tokenizer.vocab_size} tokens, the model only {model.config.vocab_size}"
            )
        context = model.config.max_position_embeddings
        self.tokenizer = tokenizer
        self.context_length = context if max_context is None else min(context, max_context)
        self._vocab_size = model.config.vocab_size
        self._max_requests = max_num_seqs + max_queue
        self._runner = ModelRunner(model)
        self._threads = StepThreads(self._dry_step, self._runner.device)
        self._scheduler: Scheduler[_Request] = Scheduler(max_num_seqs)
        self._changed = threading.Condition()
        self._cancelled: list[_Request] = []
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="kilonova-engine", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    @classmethod
    def from_directory(
        cls,
        directory: str | Path,
        *,
        device: str = "auto",
        dtype: str = "auto",
        max_num_seqs: int = 32,
        max_context: int | None = None,
        max_queue: int = 256,
    ) -> Engine:
        """The engine of a checkpoint directory. Raises CheckpointError or ConfigError."""
        tokenizer = Tokenizer.from_directory(directory)
        chosen = choose_device(device)
        model = load_decoder(directory, dtype=choose_dtype(dtype, chosen), device=chosen)
        return cls(model, tokenizer, max_num_seqs=max_num_seqs, max_context=max_context, max_queue=max_queue)

    def count_tokens(self, request: GenerationRequest) -> int:
        """Exactly what `Usage.input_tokens` of this request would be. Raises InvalidRequest."""
        return len(self._encode(request))

    def submit(self, request: GenerationRequest) -> Generation:
        """Queue a request. Raises InvalidRequest, ContextLengthExceeded, Overloaded or EngineError at once."""
        arrived = time.perf_counter()
        prompt = self._encode(request)
        sampling = request.sampling
        self._check_context(len(prompt), sampling.max_tokens)
        running = _Request(
            token_ids=prompt,
            prompt_length=len(prompt),
            sampling=sampling,
            seed=secrets.randbits(64) if sampling.seed is None else sampling.seed,
            output=OutputStream(self.tokenizer, sampling.stop, has_tools=bool(request.tools)),
            max_tokens=sampling.max_tokens,
            arrived=arrived,
        )
        running.generation = Generation(partial(self._cancel, running))
        with self._changed:
            if self._is_closed:
                raise EngineError("the engine is closed")
            if len(self._scheduler.running) + len(self._scheduler.waiting) >= self._max_requests:
                raise Overloaded(f"{self._max_requests} requests are running or waiting; try again later")
            self._scheduler.add(running)
            self._changed.notify()
        return running.generation

    def stats(self) -> EngineStats:
        """What the engine is doing now."""
        with self._changed:
            running, waiting = len(self._scheduler.running), len(self._scheduler.waiting)
        return EngineStats(running, waiting, self._runner.cache.num_tokens)

    def close(self) -> None:
        """End every request with EngineError and stop the thread; harmless when closed already."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join()
        atexit.unregister(self.close)

    def _encode(self, request: GenerationRequest) -> list[int]:
        check_request(request, self._vocab_size)
        if request.prompt is None:
            return self.tokenizer.encode_chat(request.messages, request.tools)
        prompt = request.prompt
        token_ids = self.tokenizer.encode(prompt, allow_special=True) if isinstance(prompt, str) else list(prompt)
        if not token_ids:
            raise InvalidRequest("prompt must hold at least one token", field="prompt")
        return token_ids

    def _check_context(self, prompt_length: int, max_tokens: int | None) -> None:
        wanted = 1 if max_tokens is None else max_tokens
        if prompt_length + min(wanted, 1) > self.context_length:
            field_at_fault = "prompt"
        elif prompt_length + wanted > self.context_length:
            field_at_fault = "max_tokens"
        else:
            return
        generated = f" and max_tokens of {max_tokens}" if max_tokens else ""
        raise ContextLengthExceeded(
            f"the context holds {self.context_length} tokens; the prompt of {prompt_length}{generated} exceed it",
            field=field_at_fault,
        )

    @torch.inference_mode()
    def _dry_step(self, num_tokens: int) -> None:
        """Computes a step of that many tokens and forgets it."""
        tokens = [0] * min(num_tokens, self.context_length)
        self._runner.logits(self._runner.step([StepTokens(0, 0, tokens)]))
        self._runner.cache.release(0)

    def _cancel(self, request: _Request) -> None:
        with self._changed:
            self._cancelled.append(request)
            self._changed.notify()

    @torch.inference_mode()
    def _run(self) -> None:
        try:
            while chunks := self._next_step():
                self._step(chunks)
        except Exception:
            logger.exception("the engine stops")
        finally:
            with self._changed:
                self._is_closed = True
                left = [*self._scheduler.running, *self._scheduler.waiting]
            for request in left:
                self._end(request, EngineError("the engine was closed"))
            self._wake(left)

    def _next_step(self) -> list[Chunk[_Request]]:
        """Waits for work; empty when the engine closes."""
        while True:
            with self._changed:
                while not (self._is_closed or self._cancelled or self._scheduler.has_work):
                    self._changed.wait()
                if self._is_closed:
                    return []
                cancelled, self._cancelled = self._cancelled, []
            for request in cancelled:
                self._end(request, None)
            self._wake(cancelled)
            with self._changed:
                chunks = self._scheduler.schedule()
            if chunks:
                return chunks

    def _step(self, chunks: list[Chunk[_Request]]) -> None:
        try:
            with self._threads(sum(chunk.length for chunk in chunks)):
                sampled = self._compute(chunks)
        except Exception as error:
            logger.exception("a step failed")
            for chunk in chunks:
                self._end(chunk.sequence, _failure("the model step failed", error))
        else:
            for request, token_id, raw in sampled:
                try:
                    self._advance(request, token_id, raw)
                except Exception as error:
                    logger.exception("a request failed")
                    self._end(request, _failure("the output could not be processed", error))
        self._wake(chunk.sequence for chunk in chunks)

    def _compute(self, chunks: list[Chunk[_Request]]) -> list[tuple[_Request, int | None, RawLogprob | None]]:
        """Runs the model over `chunks`; for each request that reached its last token the next one.

        The token is None where none was asked for, and -1 where the logits are not finite.
        """
        hidden = self._runner.step(
            [
                StepTokens(chunk.sequence.slot, chunk.start, chunk.sequence.token_ids[chunk.start : chunk.end])
                for chunk in chunks
            ]
        )
        complete: list[_Request] = []
        last_rows: list[int] = []
        result: list[tuple[_Request, int | None, RawLogprob | None]] = []
        row = 0
        for chunk in chunks:
            request = chunk.sequence
            request.num_computed = chunk.end
            if request.sampling.prompt_logprobs is not None and chunk.start < request.prompt_length:
                self._collect_prompt_logprobs(chunk, hidden[row : row + chunk.length])
            row += chunk.length
            if chunk.reaches_end and request.max_tokens == 0:
                result.append((request, None, None))
            elif chunk.reaches_end:
                complete.append(request)
                last_rows.append(row - 1)
        if not complete:
            return result
        logits = self._runner.logits(hidden if len(last_rows) == len(hidden) else hidden[last_rows])
        draws = [(request.seed, request.num_output_tokens) for request in complete]
        token_ids = sample(logits, [request.sampling for request in complete], draws)
        reports = _report(logits, complete, token_ids)
        result += zip(complete, token_ids, reports, strict=True)
        return result

    def _collect_prompt_logprobs(self, chunk: Chunk[_Request], hidden: Tensor) -> None:
        request = chunk.sequence
        next_ids = request.token_ids[chunk.start + 1 : chunk.end + 1]
        top = request.sampling.prompt_logprobs or 0
        request.prompt_logprobs += self._runner.prompt_logprobs(hidden[: len(next_ids)], next_ids, top)

    def _prompt_processed(self, request: _Request) -> PromptProcessed:
        report: tuple[TokenLogprob | None, ...] = ()
        if request.sampling.prompt_logprobs is not None:
            token_text = self.tokenizer.token_text
            report = (None, *(to_token_logprob(raw, token_text) for raw in request.prompt_logprobs))
        return PromptProcessed(request.prompt_length, report, tuple(request.token_ids))

    def _advance(self, request: _Request, token_id: int | None, raw: RawLogprob | None) -> None:
        """Takes in a sampled token and puts the events that follow from it."""
        generation, output = request.generation, request.output
        if not request.first_token:
            request.first_token = time.perf_counter()
            generation.put(self._prompt_processed(request))
        if token_id is None:
            self._finish(request, "max_tokens")
            return
        if token_id < 0:
            raise ArithmeticError("the model's logits are not finite")
        request.token_ids.append(token_id)
        reason: StopReason | None = None
        if token_id in self.tokenizer.stop_token_ids:
            reason = "end_turn"
        else:
            for event in output.push(token_id, raw):
                generation.put(event)
            if output.stop_sequence is not None:
                reason = "stop_sequence"
            elif request.num_output_tokens == request.max_tokens:
                reason = "max_tokens"
            elif len(request.token_ids) >= self.context_length:
                reason = "model_context_window_exceeded"
        if reason is not None:
            self._finish(request, reason)

    def _finish(self, request: _Request, reason: StopReason) -> None:
        output = request.output
        if reason != "stop_sequence":
            for event in output.flush():
                request.generation.put(event)
            if output.stop_sequence is not None:
                reason = "stop_sequence"
            elif reason == "end_turn" and output.num_tool_calls:
                reason = "tool_use"
        now = time.perf_counter()
        finished = Finished(
            reason,
            Usage(request.prompt_length, request.num_output_tokens),
            output.stop_sequence,
            time_to_first_token=request.first_token - request.arrived,
            latency=now - request.arrived,
        )
        request.generation.put(finished)
        self._end(request, None)

    def _end(self, request: _Request, error: Exception | None) -> None:
        """Frees the request's place and ends its iteration, once."""
        if request.is_over:
            return
        request.is_over = True
        if request.slot >= 0:
            self._runner.cache.release(request.slot)
        with self._changed:
            self._scheduler.remove(request)
        request.generation.put(error)

    def _wake(self, requests: Iterable[_Request]) -> None:
        """Tells each event loop, once, which of its generations have events."""
        by_loop: dict[asyncio.AbstractEventLoop, list[Generation]] = {}
        for request in requests:
            loop = request.generation.loop
            if loop is not None:
                by_loop.setdefault(loop, []).append(request.generation)
        for loop, generations in by_loop.items():
            try:
                loop.call_soon_threadsafe(_wake_all, generations)
            except RuntimeError:  # The loop is closed: nobody will read these any more.
                for generation in generations:
                    generation.cancel()


def _wake_all(generations: list[Generation]) -> None:
    for generation in generations:
        generation.wake()


def _failure(what: str, error: Exception) -> EngineError:
    failure = EngineError(f"{what}: {error}")
    failure.__cause__ = error
    return failure


def _report(logits: Tensor, requests: list[_Request], token_ids: list[int]) -> list[RawLogprob | None]:
    """Log-probabilities of the rows whose requests ask for them."""
    wanted = [row for row, request in enumerate(requests) if request.sampling.logprobs is not None]
    reports: list[RawLogprob | None] = [None] * len(requests)
    if not wanted:
        return reports
    tops = [requests[row].sampling.logprobs or 0 for row in wanted]
    raws = logprobs(logits[wanted], [max(token_ids[row], 0) for row in wanted], max(tops))
    for row, top, raw in zip(wanted, tops, raws, strict=True):
        reports[row] = raw._replace(top_ids=raw.top_ids[:top], top_logprobs=raw.top_logprobs[:top])
    return reports
