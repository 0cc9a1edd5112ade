"""Chooses, before every step, which sequences run and with how many tokens each."""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from kilonova.core.types import SamplingParams

S = TypeVar("S", bound="Sequence")


@dataclass(eq=False, slots=True, kw_only=True)
class Sequence:
    """The tokens of one request and how far the model has read them.

    `token_ids` is the prompt, then what was sampled; the first `num_computed` of them are in slot `slot` of the cache
    (-1: none yet). `seed` is the 64-bit seed its draws come from.
    """

    token_ids: list[int]
    prompt_length: int
    sampling: SamplingParams
    seed: int
    slot: int = -1
    num_computed: int = 0

    @property
    def num_output_tokens(self) -> int:
        return len(self.token_ids) - self.prompt_length


class Chunk(NamedTuple, Generic[S]):
    """Tokens `start` to `start + length` of a sequence, to be read in this step."""

    sequence: S
    start: int
    length: int

    @property
    def end(self) -> int:
        """The position after the last token."""
        return self.start + self.length

    @property
    def reaches_end(self) -> bool:
        """Whether the last token known is read, so that the next one can be sampled."""
        return self.end == len(self.sequence.token_ids)


class Scheduler(Generic[S]):
    """Admits sequences in arrival order into `max_num_seqs` places and splits each step's tokens among them.

    Sequences that generate go first, one token each, so that a long prompt never stalls them; prompts are then read
    in arrival order, in chunks of at most `mixed_prefill_tokens` a step in all while others generate, else of
    `prefill_tokens`.
    """

    def __init__(self, max_num_seqs: int, *, prefill_tokens: int = 512, mixed_prefill_tokens: int = 256) -> None:
        self.waiting: deque[S] = deque()
        self.running: list[S] = []
        self._prefill_tokens = prefill_tokens
        self._mixed_prefill_tokens = mixed_prefill_tokens
        self._free_slots = list(range(max_num_seqs))

    @property
    def has_work(self) -> bool:
        return bool(self.running or self.waiting)

    def add(self, sequence: S) -> None:
        """Queue a sequence behind those that wait."""
        self.waiting.append(sequence)

    def schedule(self) -> list[Chunk[S]]:
        """The next step: single tokens first, by slot, then longer chunks in arrival order; empty when idle."""
        while self.waiting and self._free_slots:
            sequence = self.waiting.popleft()
            sequence.slot = heapq.heappop(self._free_slots)
            self.running.append(sequence)
        generating = [sequence for sequence in self.running if sequence.num_output_tokens]
        chunks = [Chunk(sequence, sequence.num_computed, 1) for sequence in generating]
        budget = self._mixed_prefill_tokens if generating else self._prefill_tokens
        for sequence in self.running:
            if budget == 0:
                break
            if sequence.num_output_tokens:
                continue
            length = min(budget, sequence.prompt_length - sequence.num_computed)
            chunks.append(Chunk(sequence, sequence.num_computed, length))
            budget -= length
        chunks.sort(key=lambda chunk: (chunk.length > 1, chunk.sequence.slot if chunk.length == 1 else 0))
        return chunks

    def remove(self, sequence: S) -> None:
        """Take out a sequence that finished, failed or was cancelled; its place is free at once."""
        if sequence.slot < 0:
            self.waiting.remove(sequence)
            return
        self.running.remove(sequence)
        heapq.heappush(self._free_slots, sequence.slot)
        sequence.slot = -1
