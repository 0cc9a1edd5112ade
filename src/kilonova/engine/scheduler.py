"""Chooses, before every step, which sequences run and with how many tokens each."""

from __future__ import annotations

import heapq
import time
from bisect import insort
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from kilonova.core.types import SamplingParams, ServiceTier
from kilonova.engine.block_pool import block_hash, root_hash
from kilonova.engine.block_tables import BLOCK_SIZE, BlockTables
from kilonova.engine.cache_points import CachePoint
from kilonova.engine.prompt_share import PromptShare
from kilonova.engine.queue import WaitingQueue

PRIORITIES: dict[ServiceTier, int] = {"priority": 0, "default": 1, "flex": 2}
# Waiting this long counts as much as the next higher service tier.
_AGEING_SECONDS = 30.0

S = TypeVar("S", bound="Sequence")


@dataclass(eq=False, slots=True, kw_only=True)
class Sequence:
    """The tokens of one request and how far the model has read them.

    `token_ids` is the prompt, then what was sampled; the first `num_computed` of them are in slot `slot` of the cache
    (-1: none yet), and the next step checks whether `draft` follows. `seed` is the 64-bit seed its draws come from.
    `arrived` and `admitted` (0: not yet) are in seconds of the scheduler's clock. A sequence that `reads_prefixes` may
    start with what others with the same `salt` have computed; `num_cached` is how many tokens of the prompt it got that
    way, `num_kept` how many of the others it left to its cache points.
    """

    token_ids: list[int]
    prompt_length: int
    sampling: SamplingParams
    seed: int
    priority: int = PRIORITIES["default"]
    tenant: str = ""
    arrived: float = 0.0
    admitted: float = 0.0
    salt: str = ""
    reads_prefixes: bool = True
    cache_points: list[CachePoint] = field(default_factory=list)
    slot: int = -1
    num_computed: int = 0
    num_cached: int = 0
    num_kept: int = 0
    draft: list[int] = field(default_factory=list)
    was_preempted: bool = False
    _block_names: list[bytes] = field(default_factory=list)

    @property
    def num_output_tokens(self) -> int:
        return len(self.token_ids) - self.prompt_length

    @property
    def num_remaining(self) -> int:
        """Known tokens that are not in the cache."""
        return len(self.token_ids) - self.num_computed

    @property
    def is_generating(self) -> bool:
        """Whether the token sampled last is all that is left to read."""
        return self.num_computed == len(self.token_ids) - 1 >= self.prompt_length

    def block_names(self, count: int) -> list[bytes]:
        """The names of its first `count` blocks, which must be full."""
        names = self._block_names
        for index in range(len(names), count):
            parent = names[-1] if names else root_hash(self.salt)
            names.append(block_hash(parent, self.token_ids[index * BLOCK_SIZE : (index + 1) * BLOCK_SIZE]))
        return names[:count]


class Chunk(NamedTuple, Generic[S]):
    """Tokens `start` to `start + length` of a sequence, to be read in this step; the last `num_drafted` are guesses."""

    sequence: S
    start: int
    length: int
    num_drafted: int = 0

    @property
    def end(self) -> int:
        """The position after the last token."""
        return self.start + self.length

    @property
    def reaches_end(self) -> bool:
        """Whether the last token known is read, so that the next one can be sampled."""
        return self.end - self.num_drafted == len(self.sequence.token_ids)

    @property
    def is_single(self) -> bool:
        """Whether it adds one token to what is read, and guesses at most."""
        return self.length - self.num_drafted == 1


class Scheduler(Generic[S]):
    """Admits sequences into the slots and blocks of `blocks`, and splits each step's tokens among them.

    Sequences that generate go first, one token each and its guesses, so that a long prompt never stalls them; prompts
    are then read in chunks of at most `prefill_tokens` a step in all, and of at most `mixed_prefill_tokens` while
    others generate. Prompts longer than this get fewer there, where `observe` is told that they take long. A sequence
    is admitted when its prompt can be read at once and there are blocks for the first chunk. Where blocks run out, the
    running sequence of the lowest priority, among equals the one that arrived last, gives up its own and goes back to
    the front of its queue; it is read again later. One sequence alone always has room for `blocks.max_length` tokens.
    `clock` gives the seconds in which sequences arrive.
    """

    def __init__(
        self,
        blocks: BlockTables,
        *,
        prefill_tokens: int = 512,
        mixed_prefill_tokens: int = 256,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.waiting: WaitingQueue[S] = WaitingQueue(clock, _AGEING_SECONDS)
        # By priority, then arrival.
        self.running: list[S] = []
        self.blocks = blocks
        self.num_preemptions = 0
        self._clock = clock
        self._prefill_tokens = prefill_tokens
        self._mixed_prefill_tokens = mixed_prefill_tokens
        self._prompt_share = PromptShare(mixed_prefill_tokens)
        self._free_slots = list(range(blocks.num_slots))

    @property
    def has_work(self) -> bool:
        return bool(self.running or self.waiting)

    def add(self, sequence: S) -> None:
        """Queue a sequence behind those of its priority and tenant that wait."""
        self.waiting.add(sequence)

    def schedule(self) -> list[Chunk[S]]:
        """The next step: single tokens first, by slot, then longer chunks in order of priority; empty when idle."""
        chunks: dict[S, Chunk[S]] = {}
        for sequence in list(self.running):
            if sequence.slot >= 0 and sequence.is_generating:
                self._schedule_token(sequence, chunks)
        budget = self._mixed_prefill_tokens if chunks else self._prefill_tokens
        # What is left of it for prompts that take several steps.
        share = min(budget, self._prompt_share.tokens) if chunks else budget
        is_short = False
        for sequence in list(self.running):
            if budget == 0 or is_short:
                break
            most = budget if self._is_short_prompt(sequence) else min(budget, share)
            if most and sequence.slot >= 0 and not sequence.is_generating:
                length = self._schedule_chunk(sequence, most, chunks)
                budget, share = budget - length, self._left(share, sequence, length)
                is_short = sequence not in chunks
        while budget and not is_short and self.waiting and self._free_slots:
            sequence = self.waiting.first()
            length = self._admit(sequence, budget, share)
            if length == 0:
                break
            chunks[sequence] = Chunk(sequence, sequence.num_computed, length)
            budget, share = budget - length, self._left(share, sequence, length)
        return sorted(
            chunks.values(), key=lambda chunk: (not chunk.is_single, chunk.sequence.slot if chunk.is_single else 0)
        )

    def _left(self, share: int, sequence: S, length: int) -> int:
        return share if self._is_short_prompt(sequence) else max(0, share - length)

    def _is_short_prompt(self, sequence: S) -> bool:
        """Whether one step beside others is enough to read it: it may delay them once."""
        return len(sequence.token_ids) - sequence.num_cached <= self._mixed_prefill_tokens

    def complete(self, chunks: Iterable[Chunk[S]]) -> None:
        """Note that `chunks` were computed: what they filled can be found by others from now on."""
        for chunk in chunks:
            sequence = chunk.sequence
            if sequence.slot < 0:
                continue
            self._computed(sequence, chunk.end - chunk.num_drafted)
            if sequence.cache_points:
                self._keep_prefixes(sequence)

    def accept(self, sequence: S, count: int) -> None:
        """Note that the first `count` guesses were right: the sequence goes on with them, and they are computed."""
        self._computed(sequence, sequence.num_computed + count)

    def _computed(self, sequence: S, end: int) -> None:
        sequence.num_computed = end
        if self.blocks.unpublished(sequence.slot, end):
            self.blocks.publish(sequence.slot, sequence.block_names(end // BLOCK_SIZE), end)

    def observe(self, chunks: Collection[Chunk[S]], seconds: float) -> None:
        """Note how long the step of `chunks` took."""
        prompts = [chunk.length for chunk in chunks if not chunk.is_single]
        if len(prompts) < len(chunks):
            self._prompt_share.observe(sum(prompts), seconds)

    def remove(self, sequence: S) -> None:
        """Take out a sequence that finished, failed or was cancelled; its slot and blocks are free at once."""
        if sequence.slot < 0:
            self.waiting.remove(sequence)
        else:
            self._release(sequence)

    def _keep_prefixes(self, sequence: S) -> None:
        """Pins what was read up to cache points, at once: layers with a window give it up in the next step."""
        for point in list(sequence.cache_points):
            count = point.num_tokens // BLOCK_SIZE
            if count * BLOCK_SIZE <= sequence.num_computed:
                self.blocks.pin(sequence.block_names(count), point.ttl)
                sequence.num_kept = max(sequence.num_kept, count * BLOCK_SIZE - sequence.num_cached)
                sequence.cache_points.remove(point)

    def _schedule_token(self, sequence: S, chunks: dict[S, Chunk[S]]) -> None:
        # Victims come from the end of the order in which this is called, so none of them has its chunk yet.
        count = len(sequence.draft)
        if count and not self.blocks.reserve(sequence.slot, sequence.num_computed, 1 + count):
            sequence.draft, count = [], 0
        while not count and not self.blocks.reserve(sequence.slot, sequence.num_computed, 1):
            victim = self.running[-1]
            self._preempt(victim)
            if victim is sequence:
                return
        chunks[sequence] = Chunk(sequence, sequence.num_computed, 1 + count, count)

    def _schedule_chunk(self, sequence: S, budget: int, chunks: dict[S, Chunk[S]]) -> int:
        """The tokens of a prompt for which there are blocks; where there are none, it waits for those in `chunks`."""
        wanted = min(budget, sequence.num_remaining)
        while True:
            length = self.blocks.room(sequence.slot, sequence.num_computed, wanted)
            if length:
                self.blocks.reserve(sequence.slot, sequence.num_computed, length)
                chunks[sequence] = Chunk(sequence, sequence.num_computed, length)
                return length
            victim = self.running[-1]
            if victim is sequence or (chunks and victim.priority <= sequence.priority):
                return 0
            chunks.pop(victim, None)
            self._preempt(victim)

    def _admit(self, sequence: S, budget: int, share: int) -> int:
        """Gives a waiting sequence a slot and its first chunk, of the length returned; 0 where there is no room.

        The chunk has at most `budget` tokens, and where that is not all of the prompt at most `share`.
        """
        # Those that run may each need a block soon: without these, they would take back what is given here.
        spare = len(self.running)
        if self.blocks.num_available <= spare:
            return 0
        slot = self._free_slots[0]
        cached = 0
        if sequence.reads_prefixes:
            names = sequence.block_names((len(sequence.token_ids) - 1) // BLOCK_SIZE)
            cached = self.blocks.take_prefix(slot, names)
        length = len(sequence.token_ids) - cached
        length = min(length, budget if length <= self._mixed_prefill_tokens else min(budget, share))
        room = self.blocks.room(slot, cached, length, spare)
        fits = room == length > 0
        if sequence.was_preempted:
            # It comes back only where it can be read whole, lest it is preempted again and again.
            fits = fits and self.blocks.fits(slot, len(sequence.token_ids), spare)
        if not fits and self.running:
            self.blocks.release(slot)
            return 0
        length = min(length, room)
        self.blocks.reserve(slot, cached, length)
        heapq.heappop(self._free_slots)
        self.waiting.take(sequence)
        sequence.slot, sequence.num_computed = slot, cached
        if not sequence.was_preempted:
            sequence.num_cached = cached
            sequence.admitted = self._clock()
        insort(self.running, sequence, key=_order)
        return length

    def _preempt(self, sequence: S) -> None:
        self._release(sequence)
        sequence.was_preempted = True
        self.num_preemptions += 1
        self.waiting.put_back(sequence)

    def _release(self, sequence: S) -> None:
        self.running.remove(sequence)
        self.blocks.release(sequence.slot)
        heapq.heappush(self._free_slots, sequence.slot)
        sequence.slot, sequence.num_computed, sequence.draft = -1, 0, []


def _order(sequence: Sequence) -> tuple[int, float]:
    return sequence.priority, sequence.arrived
