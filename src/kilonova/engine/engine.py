"""Serves one decoder to many requests at once."""

from __future__ import annotations

import atexit
import logging
import secrets
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from kilonova.core.device import choose_device, choose_dtype
from kilonova.core.errors import (
    CheckpointError,
    EngineError,
    Overloaded,
)
from kilonova.core.types import GenerationRequest, SamplingParams
from kilonova.engine.adapters import AdapterPool
from kilonova.engine.cache_points import find_cache_points
from kilonova.engine.config import EngineConfig
from kilonova.engine.constraint import Constraint
from kilonova.engine.draft_model import DraftModel
from kilonova.engine.drawing import Drawn, draw
from kilonova.engine.generation import Generation, wake_readers
from kilonova.engine.kv_cache import KVCache
from kilonova.engine.loading import load_for_engine
from kilonova.engine.output import OutputStream
from kilonova.engine.penalties import Penalties, edits_logits
from kilonova.engine.request import Request
from kilonova.engine.rounding import round_output_projection, round_weights
from kilonova.engine.runner import ModelRunner, StepTokens
from kilonova.engine.scheduler import PRIORITIES, Chunk, Scheduler
from kilonova.engine.speculation import Speculator, StepCost
from kilonova.engine.stats import EngineStats
from kilonova.engine.threads import StepThreads
from kilonova.engine.validation import check_context, encode_prompt
from kilonova.models.checkpoint import load_decoder
from kilonova.models.decoder.model import Decoder
from kilonova.nn.quantized import num_quantized_weights
from kilonova.text.grammar import Constraints, GrammarCompiler
from kilonova.text.tokenizer import Tokenizer

__all__ = ["Engine", "EngineStats", "Generation"]

logger = logging.getLogger(__name__)

# An engine that fails as often as this in a row is broken, whatever the requests were.
MAX_FAILED_STEPS = 3


class Engine:
    """Serves one decoder: a thread steps all running requests together (continuous batching).

    `config` sets limits and methods. `compute_dtype`, the weights' own unless given, is that of products and cache; it
    may be float32 over weights in bfloat16. A `draft_model` guesses where the text gives nothing to guess from. The
    model is taken over. All methods may be called from any thread. The engine lives until `close()`, or the process's
    end. Raises ConfigError for a cache that is too small, CheckpointError when models and tokenizer do not fit.
    """

    def __init__(
        self,
        model: Decoder,
        tokenizer: Tokenizer,
        config: EngineConfig | None = None,
        *,
        compute_dtype: torch.dtype | None = None,
        draft_model: Decoder | None = None,
    ) -> None:
        config = config or EngineConfig()
        if tokenizer.vocab_size > model.config.vocab_size:
            raise CheckpointError(
                f"the tokenizer has {tokenizer.vocab_size} tokens, the model only {model.config.vocab_size}"
            )
        context = min(model.config.max_position_embeddings, config.max_context or model.config.max_position_embeddings)
        weight = model.model.embed_tokens.weight
        if config.quantization is not None:
            round_weights(model, config.quantization)
        elif num_quantized_weights(model):
            # Beside layers of 8 or 4 bits it would be most of what a step reads.
            round_output_projection(model)
        cache = KVCache(
            model.config,
            compute_dtype or weight.dtype,
            weight.device,
            max_num_seqs=config.max_num_seqs,
            max_context=context,
            num_bytes=config.kv_cache_bytes,
        )
        if cache.max_length < context:
            logger.warning("the key-value cache holds %d tokens, less than a context of %d", cache.max_length, context)
        self.tokenizer = tokenizer
        self.context_length = cache.max_length
        self._vocab_size = model.config.vocab_size
        self._grammars = GrammarCompiler(tokenizer, self._vocab_size)
        self._max_requests = config.max_num_seqs + config.max_queue
        self._runner = ModelRunner(model, cache)
        self._threads = StepThreads(self._dry_step, self._runner.device)
        self._speculator: Speculator | None = None
        if config.speculate:
            draft = None
            if draft_model is not None:
                draft = DraftModel(draft_model, self._vocab_size, config.max_num_seqs, self.context_length)
            self._speculator = Speculator(StepCost.measure(self._timed_step), draft)
        self._scheduler: Scheduler[Request] = Scheduler(cache.blocks, clock=time.perf_counter)
        self._changed = threading.Condition()
        # Requests that are to end, and why if not because they were cancelled.
        self._stopped: list[tuple[Request, EngineError | None]] = []
        self._adapters = AdapterPool(
            self._runner, self._scheduler.add, self._stop, self._changed, config.max_loras, config.max_lora_rank
        )
        self._is_closed = False
        self._steps, self._step_requests, self._step_seconds = 0, 0, 0.0
        self._failed_steps = 0
        self._thread = threading.Thread(target=self._run, name="kilonova-engine", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    @classmethod
    def from_directory(
        cls,
        directory: str | Path,
        config: EngineConfig | None = None,
        *,
        device: str = "auto",
        dtype: str = "auto",
        draft_directory: str | Path | None = None,
    ) -> Engine:
        """The engine of a checkpoint directory, and of its draft model's. Raises CheckpointError or ConfigError."""

        def build() -> Engine:
            tokenizer = Tokenizer.from_directory(directory)
            chosen = choose_device(device)
            compute_dtype = choose_dtype(dtype, chosen)
            model = load_for_engine(directory, compute_dtype, chosen)
            draft = (
                None if draft_directory is None else load_decoder(draft_directory, dtype=compute_dtype, device=chosen)
            )
            return cls(model, tokenizer, config, compute_dtype=compute_dtype, draft_model=draft)

        # On a thread that ends, and its OpenMP workers with it: where more of them than processors exist, they all
        # sleep between products, and prompts take half as long again.
        with ThreadPoolExecutor(max_workers=1) as pool:
            return pool.submit(build).result()

    @property
    def weight_bytes(self) -> int:
        """Bytes of weights that a step of one token reads."""
        return self._runner.weight_bytes

    def count_tokens(self, request: GenerationRequest) -> int:
        """Exactly what `Usage.input_tokens` of this request would be. Raises InvalidRequest."""
        return len(encode_prompt(request, self.tokenizer, self._vocab_size))

    def submit(self, request: GenerationRequest) -> Generation:
        """Queue a request.

        Raises InvalidRequest, ContextLengthExceeded, ModelNotFound for its adapter, Overloaded or EngineError at once.
        """
        arrived = time.perf_counter()
        prompt = encode_prompt(request, self.tokenizer, self._vocab_size)
        sampling = request.sampling
        check_context(len(prompt), sampling.max_tokens, self.context_length)
        adapter = self._adapters.get(request.adapter) if request.adapter else None
        constraints = Constraints(request.tools, request.tool_choice, request.parallel_tool_calls, request.grammar)
        running = Request(
            token_ids=prompt,
            prompt_length=len(prompt),
            sampling=sampling,
            seed=secrets.randbits(64) if sampling.seed is None else sampling.seed,
            priority=PRIORITIES[request.service_tier],
            tenant=request.tenant,
            salt=request.tenant if adapter is None else f"{request.tenant}\0{adapter.version}",
            # Their report needs every token of the prompt computed.
            reads_prefixes=sampling.prompt_logprobs is None,
            cache_points=find_cache_points(self.tokenizer, request, prompt),
            tokenizer=self.tokenizer,
            output=OutputStream(
                self.tokenizer,
                sampling.stop,
                has_tools=constraints.allows_calls,
                # Evaluation scores every token of a raw prompt's continuation, its end among them.
                tells_end=request.prompt is not None,
            ),
            adapter=adapter,
            constraint=self._constraint(constraints, sampling) if constraints else None,
            penalties=Penalties(sampling, len(prompt)) if edits_logits(sampling) else None,
            max_tokens=sampling.max_tokens,
            context_length=self.context_length,
            counts_cached=request.counts_cached,
            arrived=arrived,
        )
        running.generation = Generation(partial(self._stop, running), running.progress)
        with self._changed:
            if self._is_closed:
                raise EngineError("the engine is closed")
            if self._num_requests() >= self._max_requests:
                raise Overloaded(f"{self._max_requests} requests are running or waiting; try again later")
            if adapter is None:
                self._scheduler.add(running)
            else:
                self._adapters.submit(running)
            self._changed.notify()
        return running.generation

    def _constraint(self, constraints: Constraints, sampling: SamplingParams) -> Constraint:
        grammar = self._grammars.compile(constraints)
        stops = self.tokenizer.stop_token_ids
        return Constraint(grammar, self._vocab_size, stops, ignore_eos=sampling.ignore_eos)

    def stats(self) -> EngineStats:
        """What the engine is doing now."""
        with self._changed:
            scheduler = self._scheduler
            return EngineStats(
                len(scheduler.running),
                len(scheduler.waiting) + len(self._adapters.waiting),
                scheduler.blocks.num_tokens,
                scheduler.blocks.stats(),
                scheduler.num_preemptions,
                self._adapters.use(),
                self._steps,
                self._step_requests,
                self._step_seconds,
            )

    @property
    def is_closed(self) -> bool:
        """Whether it takes no more requests: it was closed, or it broke."""
        return self._is_closed

    def add_adapter(self, name: str, directory: str | Path) -> None:
        """Know a PEFT directory by a name that requests can give. Raises CheckpointError or ConfigError."""
        self._adapters.add(name, Path(directory))

    def remove_adapter(self, name: str) -> None:
        """Forget an adapter. Raises ModelNotFound, and InvalidRequest while requests use it."""
        self._adapters.remove(name)

    def reset_prefix_cache(self) -> None:
        """Reuse nothing that was computed until now. To be called when the model's weights have changed."""
        with self._changed:
            self._scheduler.blocks.forget()

    def close(self) -> None:
        """End every request with EngineError and stop the thread; harmless when closed already."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join()
        self._adapters.close()
        atexit.unregister(self.close)

    @torch.inference_mode()
    def _dry_step(self, num_tokens: int) -> None:
        """Computes a step of that many tokens, or of as many as the cache takes at once, and forgets it."""
        tokens = [0] * self._runner.cache.blocks.room(0, 0, min(num_tokens, self.context_length))
        self._runner.logits(self._runner.step([StepTokens(0, 0, tokens)]))
        self._runner.cache.release(0)

    def _timed_step(self, num_tokens: int) -> None:
        with self._threads(num_tokens):
            self._dry_step(num_tokens)

    def _num_requests(self) -> int:
        return len(self._scheduler.running) + len(self._scheduler.waiting) + len(self._adapters.waiting)

    def _stop(self, request: Request, error: EngineError | None = None) -> None:
        with self._changed:
            self._stopped.append((request, error))
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
                left = [*self._scheduler.running, *self._scheduler.waiting, *self._adapters.waiting]
            for request in left:
                try:
                    self._end(request, EngineError("the engine was closed"))
                except Exception:  # It broke in the middle of something: the others are to be told as well.
                    request.generation.put(EngineError("the engine stopped"))
            wake_readers(request.generation for request in left)

    def _next_step(self) -> list[Chunk[Request]]:
        """Waits for work; empty when the engine closes."""
        while True:
            with self._changed:
                while not (self._is_closed or self._stopped or self._scheduler.has_work):
                    self._changed.wait()
                if self._is_closed:
                    return []
                stopped, self._stopped = self._stopped, []
            for request, error in stopped:
                self._end(request, error)
            wake_readers(request.generation for request, _ in stopped)
            if self._speculator is not None:
                self._speculator.draft(self._scheduler.running)
            with self._changed:
                chunks = self._scheduler.schedule()
            if chunks:
                return chunks

    def _step(self, chunks: list[Chunk[Request]]) -> None:
        try:
            started = time.perf_counter()
            with self._threads(sum(chunk.length for chunk in chunks)):
                sampled = self._compute(chunks)
            seconds = time.perf_counter() - started
            self._scheduler.observe(chunks, seconds)
        except Exception as error:
            logger.exception("a step failed")
            for chunk in chunks:
                self._end(chunk.sequence, _failure("the model step failed", error))
            self._failed_steps += 1
            if self._failed_steps == MAX_FAILED_STEPS:
                wake_readers(chunk.sequence.generation for chunk in chunks)
                raise
        else:
            self._failed_steps = 0
            self._steps, self._step_requests = self._steps + 1, self._step_requests + len(chunks)
            self._step_seconds += seconds
            for drawn in sampled:
                try:
                    self._advance(drawn)
                except Exception as error:
                    logger.exception("a request failed")
                    self._end(drawn.request, _failure("the output could not be processed", error))
        wake_readers(chunk.sequence.generation for chunk in chunks)

    def _compute(self, chunks: list[Chunk[Request]]) -> list[Drawn]:
        """Runs the model over `chunks`; for each request that reached its last token the next ones."""
        hidden = self._runner.step(
            [
                StepTokens(
                    chunk.sequence.slot,
                    chunk.start,
                    [*chunk.sequence.token_ids[chunk.start : chunk.end], *chunk.sequence.draft[: chunk.num_drafted]],
                    chunk.sequence.adapter_weights,
                )
                for chunk in chunks
            ]
        )
        with self._changed:
            self._scheduler.complete(chunks)
        complete: list[Request] = []
        last_rows: list[int] = []
        result: list[Drawn] = []
        row = 0
        for chunk in chunks:
            request = chunk.sequence
            if request.sampling.prompt_logprobs is not None and chunk.start < request.prompt_length:
                self._collect_prompt_logprobs(chunk, hidden[row : row + chunk.length])
            row += chunk.length
            if chunk.reaches_end and request.max_tokens == 0:
                result.append(Drawn(request, [None], [None]))
            elif chunk.reaches_end:
                count = 1 + chunk.num_drafted
                complete += [request] * count
                last_rows += range(row - count, row)
        if complete:
            logits = self._runner.logits(hidden if len(last_rows) == len(hidden) else hidden[last_rows])
            result += draw(self._runner, logits, complete)
        return result

    def _advance(self, drawn: Drawn) -> None:
        request = drawn.request
        if drawn.error is not None:
            self._end(request, drawn.error)
            return
        if self._speculator is not None:
            self._speculator.learn(request, [token_id for token_id in drawn.token_ids if token_id is not None])
        for token_id, raw in zip(drawn.token_ids, drawn.raws, strict=True):
            if request.advance(token_id, raw):
                self._end(request, None)
                return
        if len(drawn.token_ids) > 1:
            with self._changed:
                self._scheduler.accept(request, len(drawn.token_ids) - 1)

    def _collect_prompt_logprobs(self, chunk: Chunk[Request], hidden: Tensor) -> None:
        request = chunk.sequence
        # After a preemption, the prompt is read again.
        first = max(chunk.start, len(request.prompt_logprobs))
        next_ids = request.token_ids[first + 1 : min(chunk.end + 1, request.prompt_length)]
        rows = hidden[first - chunk.start : first - chunk.start + len(next_ids)]
        request.prompt_logprobs += self._runner.prompt_logprobs(rows, next_ids, request.sampling.prompt_logprobs or 0)

    def _end(self, request: Request, error: Exception | None) -> None:
        """Frees the request's place and ends its iteration, once."""
        if request.is_over:
            return
        request.is_over = True
        with self._changed:
            if self._adapters.release(request):
                self._scheduler.remove(request)
        request.generation.put(error)


def _failure(what: str, error: Exception) -> EngineError:
    failure = EngineError(f"{what}: {error}")
    failure.__cause__ = error
    return failure
