"""Completions sampled from the weights that are being trained."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from kilonova.core.errors import ConfigError, EngineError
from kilonova.core.types import SamplingParams
from kilonova.engine.kv_cache import KVCache, Segment
from kilonova.engine.sampling import sample
from kilonova.engine.scheduler import Chunk, Scheduler
from kilonova.engine.scheduler import Sequence as ScheduledSequence
from kilonova.train.placed import PlacedDecoder


@dataclass(frozen=True, kw_only=True)
class RolloutSection:
    """How completions are drawn: `prompts` of them answered at a time, each in at most `max_new_tokens` tokens.

    Tokens are drawn at `temperature` from the whole distribution, and every log-probability of the objective is one at
    that temperature. `max_num_seqs` completions are generated together. `missing_eos_penalty` is taken off the reward
    of a completion that was cut off before its end token.
    """

    prompts: int = 64
    max_new_tokens: int = 64
    temperature: float = 1.0
    max_num_seqs: int = 64
    missing_eos_penalty: float = 0.0

    def __post_init__(self) -> None:
        for name in ("prompts", "max_new_tokens", "max_num_seqs"):
            if getattr(self, name) < 1:
                raise ConfigError(f"rollout.{name}: must be at least 1")
        if not 0 < self.temperature <= 2:
            raise ConfigError("rollout.temperature: must be above 0 and at most 2")


@dataclass(frozen=True)
class Completion:
    """Sampled tokens, the end token included, and each one's log-probability when it was drawn, in nats.

    `is_complete` is whether it ended with an end token, rather than at the limit.
    """

    token_ids: tuple[int, ...]
    log_probs: tuple[float, ...]
    is_complete: bool


class CompletionGenerator(Protocol):
    """Whatever draws completions: the engine in this process, or a fleet that is sent the weights.

    `log_probs` are those of the distribution drawn from, which is `softmax(logits / temperature)`, or greedy at
    temperature 0 (then of temperature 1). `seeds` holds one 64-bit seed a prompt: equal weights, prompts and seeds give
    equal completions.
    """

    def generate(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], *, max_new_tokens: int, temperature: float
    ) -> list[Completion]: ...


def completion_seed(seed: int, rollout: int, index: int) -> int:
    """The 64-bit seed of completion `index` of a rollout."""
    digest = hashlib.blake2b(struct.pack("<qqq", seed, rollout, index), digest_size=8).digest()
    return int.from_bytes(digest, "little")


@dataclass(eq=False, slots=True, kw_only=True)
class _Sampled(ScheduledSequence):
    log_probs: list[float] = field(default_factory=list)


class EngineGenerator:
    """The engine's scheduler, cache and sampling over the modules that are trained, in the number format of the run.

    Weights are read where the optimiser writes them, so there is no copy to bring up to date. Steps run on the calling
    thread and the cache starts empty, so that the completions depend on weights, prompts and seeds alone.
    """

    def __init__(self, model: PlacedDecoder, stop_token_ids: frozenset[int], max_num_seqs: int = 64) -> None:
        self._model = model
        self._stop_token_ids = stop_token_ids
        self._max_num_seqs = max_num_seqs

    @torch.no_grad()
    def generate(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], *, max_new_tokens: int, temperature: float
    ) -> list[Completion]:
        sampling = SamplingParams(max_tokens=max_new_tokens, temperature=temperature, top_p=1.0)
        sequences = [
            _Sampled(token_ids=list(prompt), prompt_length=len(prompt), sampling=sampling, seed=seed)
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]
        decoder = self._model.decoder
        cache = KVCache(
            decoder.config,
            self._model.dtype,
            self._model.device,
            max_num_seqs=self._max_num_seqs,
            max_context=max(map(len, prompts), default=0) + max_new_tokens,
        )
        scheduler: Scheduler[_Sampled] = Scheduler(cache.blocks)
        for sequence in sequences:
            scheduler.add(sequence)
        was_training = decoder.training
        decoder.eval()
        try:
            with self._model.autocast():
                while chunks := scheduler.schedule():
                    over = self._step(chunks, cache)
                    scheduler.complete(chunks)
                    for sequence in over:
                        scheduler.remove(sequence)
        finally:
            decoder.train(was_training)
        return [
            Completion(
                tuple(sequence.token_ids[sequence.prompt_length :]),
                tuple(sequence.log_probs),
                sequence.token_ids[-1] in self._stop_token_ids,
            )
            for sequence in sequences
        ]

    def _step(self, chunks: list[Chunk[_Sampled]], cache: KVCache) -> list[_Sampled]:
        """Reads `chunks` and samples where one reaches its end; the sequences that are over."""
        hidden = self._hidden_states(chunks, cache)
        ends = torch.tensor([chunk.length for chunk in chunks]).cumsum(0) - 1
        complete = [(chunk.sequence, int(end)) for chunk, end in zip(chunks, ends, strict=True) if chunk.reaches_end]
        if not complete:
            return []
        sequences = [sequence for sequence, _ in complete]
        logits = self._model.decoder.lm_head(hidden[[row for _, row in complete]]).float()
        draws = [(sequence.seed, sequence.num_output_tokens) for sequence in sequences]
        token_ids = sample(logits, [sequence.sampling for sequence in sequences], draws)
        if min(token_ids) < 0:
            raise EngineError("the logits of the model that is trained are not finite")
        scaled = logits / (sequences[0].sampling.temperature or 1.0)
        chosen = torch.tensor(token_ids, device=logits.device)[:, None]
        log_probs = scaled.log_softmax(dim=-1).gather(1, chosen)[:, 0].tolist()
        over = []
        for sequence, token_id, log_prob in zip(sequences, token_ids, log_probs, strict=True):
            sequence.token_ids.append(token_id)
            sequence.log_probs.append(log_prob)
            if token_id in self._stop_token_ids or sequence.num_output_tokens == sequence.sampling.max_tokens:
                over.append(sequence)
        return over

    def _hidden_states(self, chunks: list[Chunk[_Sampled]], cache: KVCache) -> Tensor:
        """Final hidden states `[sum of lengths, hidden]`."""
        device = self._model.device
        attend = cache.attend([Segment(chunk.sequence.slot, chunk.start, chunk.length) for chunk in chunks])

        def attend_in_cache_format(
            query: Tensor, key: Tensor, value: Tensor, layer_index: int, sliding_window: int | None
        ) -> Tensor:
            # Under autocast, queries and keys may come out of their norm in another format than values.
            query, key, value = (part.to(cache.dtype) for part in (query, key, value))
            return attend(query, key, value, layer_index, sliding_window)

        ids = [token for chunk in chunks for token in chunk.sequence.token_ids[chunk.start : chunk.end]]
        positions = [position for chunk in chunks for position in range(chunk.start, chunk.end)]
        return self._model.decoder.hidden_states(
            torch.tensor([ids], device=device),
            position_ids=torch.tensor([positions], device=device),
            attend=attend_in_cache_format,
        )[0]
