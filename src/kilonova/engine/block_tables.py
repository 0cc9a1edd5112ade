"""Which blocks of the cache hold the positions of each running sequence."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from kilonova.engine.block_pool import NULL_BLOCK, BlockPool, PoolStats

BLOCK_SIZE = 16

# More than any number of blocks: nothing of the sequence is published any more.
_NEVER = 2**62


class WindowGroup:
    """The layers of one sliding window (None: full attention): a pool, and a row of `table` for each slot.

    Entry `i` of a row is the block of positions `i * BLOCK_SIZE` and up, `NULL_BLOCK` where there is none: behind the
    window, and after the last position. `table` is int32 `[slots, blocks]` and changes in place.
    """

    def __init__(self, window: int | None, pool: BlockPool, num_slots: int, width: int) -> None:
        self.window = window
        self.pool = pool
        self.table = np.full((num_slots, width), NULL_BLOCK, dtype=np.int32)
        # New blocks of which a step writes only a part, so that the rest is still what their last owner left.
        self.partly_written: list[int] = []
        self._firsts = [0] * num_slots
        self._ends = [0] * num_slots

    def first_block(self, position: int) -> int:
        """The index of the block with the first position that the token at `position` sees."""
        return 0 if self.window is None else max(0, position - self.window + 1) // BLOCK_SIZE

    def missing(self, slot: int, end: int) -> int:
        """How many blocks the slot lacks for positions up to `end`."""
        return max(0, -(-end // BLOCK_SIZE) - self._ends[slot])

    def free_behind(self, slot: int, position: int) -> None:
        """Release what no token from `position` on sees."""
        first, held = min(self.first_block(position), self._ends[slot]), self._firsts[slot]
        if first > held:
            for block in self.table[slot, held:first].tolist():
                self.pool.release(block)
            self.table[slot, held:first] = NULL_BLOCK
            self._firsts[slot] = first

    def unchanged_until(self, slot: int) -> int:
        """The number of positions from which on a sequence needs another block, or can do without one it has."""
        end = self._ends[slot] * BLOCK_SIZE
        return end if self.window is None else min(end, (self._firsts[slot] + 1) * BLOCK_SIZE + self.window - 1)

    def extend(self, slot: int, count: int, end: int) -> None:
        """Add `count` blocks, of which the next step writes positions up to `end`."""
        old = self._ends[slot]
        blocks = self.pool.allocate(count)
        self.table[slot, old : old + count] = blocks
        self._ends[slot] = old + count
        if end % BLOCK_SIZE:
            self.partly_written.append(blocks[-1])

    def longest_prefix(self, names: Sequence[bytes], count: int) -> int:
        """The most leading blocks, up to `count`, after which a sequence can go on: those its next token sees exist."""
        find = self.pool.find
        if self.window is None:
            return next((index for index in range(count) if find(names[index]) is None), count)
        checked = count
        while count:
            first = self.first_block(count * BLOCK_SIZE)
            while checked > first and find(names[checked - 1]) is not None:
                checked -= 1
            if checked <= first:
                break
            count = checked = checked - 1
        return count

    def take(self, slot: int, names: Sequence[bytes]) -> None:
        """Let an empty slot start with the blocks of these contents, as far as its next token sees them."""
        first = self.first_block(len(names) * BLOCK_SIZE)
        blocks = [self.pool.find(name) for name in names[first:]]
        for index, block in enumerate(blocks, first):
            assert block is not None
            self.pool.hold(block)
            self.table[slot, index] = block
        self._firsts[slot], self._ends[slot] = first, len(names)

    def publish(self, slot: int, start: int, names: Sequence[bytes]) -> None:
        """Let blocks from index `start` on be found by `names`."""
        for block, name in zip(self.table[slot, start : start + len(names)].tolist(), names, strict=True):
            if block != NULL_BLOCK:
                self.pool.publish(block, name)

    def release(self, slot: int) -> None:
        """Release everything; the end first, so that what other sequences may share is evicted last."""
        held = slice(self._firsts[slot], self._ends[slot])
        for block in reversed(self.table[slot, held].tolist()):
            self.pool.release(block)
        self.table[slot, held] = NULL_BLOCK
        self._firsts[slot] = self._ends[slot] = 0


class GroupSize(NamedTuple):
    """The sliding window of a group and the number of its blocks, the null block included."""

    window: int | None
    num_blocks: int


class BlockTables:
    """The blocks of `num_slots` sequences of at most `max_length` tokens each, in every window group.

    A sequence's blocks have names, `block_pool.block_hash` of its tokens, by which others find them once published.
    """

    def __init__(
        self,
        sizes: Sequence[GroupSize],
        num_slots: int,
        max_length: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.num_slots = num_slots
        self.max_length = max_length
        width = -(-max_length // BLOCK_SIZE)
        self.groups = [WindowGroup(size.window, BlockPool(size.num_blocks, clock), num_slots, width) for size in sizes]
        self._lengths = [0] * num_slots
        self._published = [0] * num_slots
        # Up to this many positions, a slot's blocks stay as they are.
        self._unchanged = [0] * num_slots

    @property
    def num_tokens(self) -> int:
        """Positions of all running sequences; what they share counts for each."""
        return sum(self._lengths)

    @property
    def num_available(self) -> int:
        """Blocks that can be handed out now, in the group that has the fewest."""
        return min(group.pool.num_available for group in self.groups)

    def take_prefix(self, slot: int, names: Sequence[bytes]) -> int:
        """Let an empty slot start with what is cached of the blocks `names`; the number of tokens that are."""
        count, before = len(names), -1
        while count != before:
            before = count
            for group in self.groups:
                count = group.longest_prefix(names, count)
        if count:
            for group in self.groups:
                group.take(slot, names[:count])
            self._lengths[slot] = count * BLOCK_SIZE
            self._published[slot] = count
        return count * BLOCK_SIZE

    def room(self, slot: int, start: int, length: int, spare: int = 0) -> int:
        """How many of the `length` positions from `start` on blocks can be had for, with `spare` blocks left over."""
        end = start + length
        for group in self.groups:
            group.free_behind(slot, start)
            lacking = group.missing(slot, end) - max(0, group.pool.num_available - spare)
            if lacking > 0:
                end = (-(-end // BLOCK_SIZE) - lacking) * BLOCK_SIZE
        return max(0, end - start)

    def fits(self, slot: int, end: int, spare: int = 0) -> bool:
        """Whether there are blocks for all positions up to `end`, where none are given back on the way there."""
        full = [group for group in self.groups if group.window is None]
        return all(group.missing(slot, end) + spare <= group.pool.num_available for group in full)

    def reserve(self, slot: int, start: int, length: int) -> bool:
        """Hold the blocks of positions `start` to `start + length` and free those behind windows; all or nothing."""
        end = start + length
        if end <= self._unchanged[slot]:
            self._lengths[slot] = end
            return True
        if end > self.max_length:
            return False
        for group in self.groups:
            group.free_behind(slot, start)
        missing = [group.missing(slot, end) for group in self.groups]
        if any(count > group.pool.num_available for group, count in zip(self.groups, missing, strict=True)):
            return False
        for group, count in zip(self.groups, missing, strict=True):
            if count:
                group.extend(slot, count, end)
        self._lengths[slot] = end
        self._unchanged[slot] = min(self.max_length, *(group.unchanged_until(slot) for group in self.groups))
        return True

    def unpublished(self, slot: int, num_computed: int) -> range:
        """Indices of full blocks that nobody can find yet."""
        return range(self._published[slot], num_computed // BLOCK_SIZE)

    def publish(self, slot: int, names: Sequence[bytes], num_computed: int) -> None:
        """Let the full blocks among the first `num_computed` tokens be found by others."""
        new = self.unpublished(slot, num_computed)
        if new:
            for group in self.groups:
                group.publish(slot, new.start, names[new.start : new.stop])
            self._published[slot] = new.stop

    def pin(self, names: Sequence[bytes], seconds: float) -> None:
        """Keep a published prefix until `seconds` after its last use, as far as the token after it needs it."""
        for group in self.groups:
            for name in names[group.first_block(len(names) * BLOCK_SIZE) :]:
                group.pool.pin(name, seconds)

    def release(self, slot: int) -> None:
        """Give up all blocks of a slot; what is published stays until its place is needed."""
        for group in self.groups:
            group.release(slot)
        self._lengths[slot] = self._published[slot] = self._unchanged[slot] = 0

    def forget(self) -> None:
        """Forget what is published, and publish nothing more of the sequences that run: the weights have changed."""
        for group in self.groups:
            group.pool.forget()
        self._published = [_NEVER if length else 0 for length in self._lengths]

    def is_whole(self) -> bool:
        """Whether no sequence holds anything and every block is accounted for."""
        empty = all(not (group.table != NULL_BLOCK).any() for group in self.groups)
        return empty and self.num_tokens == 0 and all(group.pool.is_whole() for group in self.groups)

    def stats(self) -> PoolStats:
        """Blocks of all groups together."""
        return PoolStats(*map(sum, zip(*(group.pool.stats() for group in self.groups), strict=True)))
