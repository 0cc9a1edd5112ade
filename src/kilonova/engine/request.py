"""A running request: its sequence, its limits, and the events its tokens become."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from kilonova.core.types import Finished, PromptProcessed, StopReason, TokenLogprob, Usage
from kilonova.engine.adapters import Adapter
from kilonova.engine.constraint import Constraint
from kilonova.engine.generation import Generation, Progress
from kilonova.engine.low_rank import AdapterWeights
from kilonova.engine.output import OutputStream, to_token_logprob
from kilonova.engine.penalties import Penalties
from kilonova.engine.sampling import RawLogprob
from kilonova.engine.scheduler import Sequence
from kilonova.engine.speculation import FIRST_ESTIMATE, PromptLookup
from kilonova.text.tokenizer import Tokenizer


@dataclass(eq=False, slots=True, kw_only=True)
class Request(Sequence):
    """A sequence with the limits and the output of its request. Times are `time.perf_counter()` seconds."""

    tokenizer: Tokenizer
    output: OutputStream
    adapter: Adapter | None = None
    constraint: Constraint | None = None
    penalties: Penalties | None = None
    counts_cached: bool = True
    generation: Generation = field(init=False)
    max_tokens: int | None
    context_length: int
    first_token: float = 0.0
    prompt_logprobs: list[RawLogprob] = field(default_factory=list)
    lookup: PromptLookup = field(default_factory=PromptLookup)
    # Of a guess of the draft model to be right, and whether the present guesses are its.
    chance: float = FIRST_ESTIMATE
    is_modelled: bool = False
    stop_reason: StopReason | None = None
    is_over: bool = False

    @property
    def adapter_weights(self) -> AdapterWeights | None:
        """Of its adapter, which is loaded once the request has been admitted."""
        return None if self.adapter is None else self.adapter.weights

    @property
    def num_left(self) -> int:
        """Tokens that can still be generated."""
        left = self.context_length - len(self.token_ids)
        return left if self.max_tokens is None else min(left, self.max_tokens - self.num_output_tokens)

    @property
    def usage(self) -> Usage:
        cached = self.num_cached if self.counts_cached else 0
        return Usage(self.prompt_length, self.num_output_tokens, cached, self.num_kept)

    def progress(self) -> Progress:
        """What its generation tells while it runs and after."""
        waited = self.first_token - self.arrived if self.first_token else 0.0
        queue_time = self.admitted - self.arrived if self.admitted else None
        return Progress(self.usage, waited, self.stop_reason, queue_time, self.is_over)

    def advance(self, token_id: int | None, raw: RawLogprob | None) -> bool:
        """Take in a sampled token (None: none was asked for) and put what follows from it; whether that is the end."""
        if not self.first_token:
            self.first_token = time.perf_counter()
            self.generation.put(self._prompt_processed())
        reason: StopReason | None = "max_tokens"
        if token_id is not None:
            if token_id < 0:
                raise ArithmeticError("the model's logits are not finite")
            reason = self._take(token_id, raw)
        if reason is None:
            return False
        self._finish(reason)
        return True

    def _prompt_processed(self) -> PromptProcessed:
        report: tuple[TokenLogprob | None, ...] = ()
        if self.sampling.prompt_logprobs is not None:
            token_text = self.tokenizer.token_text
            report = (None, *(to_token_logprob(raw, token_text) for raw in self.prompt_logprobs))
        return PromptProcessed(self.prompt_length, report, tuple(self.token_ids))

    def _take(self, token_id: int, raw: RawLogprob | None) -> StopReason | None:
        self.token_ids.append(token_id)
        if token_id in self.tokenizer.stop_token_ids and (self.constraint is not None or not self.sampling.ignore_eos):
            self.output.end(raw)
            return "end_turn"
        if self.constraint is not None:
            self.constraint.accept(token_id)
        for event in self.output.push(token_id, raw):
            self.generation.put(event)
        if self.output.stop_sequence is not None:
            return "stop_sequence"
        if self.num_output_tokens == self.max_tokens:
            return "max_tokens"
        if len(self.token_ids) >= self.context_length:
            return "model_context_window_exceeded"
        return None

    def _finish(self, reason: StopReason) -> None:
        output = self.output
        if reason != "stop_sequence":
            for event in output.flush():
                self.generation.put(event)
            if output.stop_sequence is not None:
                reason = "stop_sequence"
            elif reason == "end_turn" and output.num_tool_calls:
                reason = "tool_use"
        self.stop_reason = reason
        finished = Finished(
            reason,
            self.usage,
            output.stop_sequence,
            time_to_first_token=self.first_token - self.arrived,
            latency=time.perf_counter() - self.arrived,
        )
        self.generation.put(finished)
