"""Blocks of the cache: counted references, contents found by their hash, and eviction of what was used longest ago."""

from __future__ import annotations

import hashlib
import math
import time
from array import array
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

# What a table holds where a sequence has no block. Never handed out.
NULL_BLOCK = 0


def block_hash(parent: bytes, token_ids: Sequence[int]) -> bytes:
    """The name of a full block: its own tokens, and through `parent` (the previous block's name) all before them."""
    return hashlib.blake2b(parent + array("q", token_ids).tobytes(), digest_size=16).digest()


def root_hash(salt: str) -> bytes:
    """The parent of a sequence's first block. Sequences of different salts share nothing."""
    return hashlib.blake2b(salt.encode(), digest_size=16).digest()


class PoolStats(NamedTuple):
    """Blocks that sequences hold, blocks kept for their contents alone (the pinned among them), and empty ones."""

    used: int
    cached: int
    pinned: int
    free: int


@dataclass(slots=True)
class _Pin:
    seconds: float
    until: float


class BlockPool:
    """Hands out the ids 1 to `num_blocks - 1`.

    A block is held by as many sequences as have it in their tables. One that nobody holds is empty, or kept because its
    contents have a name: then whoever needs the same contents finds it, until its place is needed. Empty blocks are
    handed out first, then the one used longest ago, and pinned ones last of all. A pin lasts until `seconds` have
    passed since the block was last held; at most half of the blocks are pinned. `clock` gives seconds.
    """

    def __init__(self, num_blocks: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.num_blocks = num_blocks
        self._clock = clock
        self._references = [0] * num_blocks
        self._empty = list(range(num_blocks - 1, NULL_BLOCK, -1))
        self._names: dict[int, bytes] = {}
        self._by_name: dict[bytes, int] = {}
        # Blocks with a name that nobody holds, used longest ago first.
        self._cached: OrderedDict[int, None] = OrderedDict()
        self._cached_and_pinned: OrderedDict[int, None] = OrderedDict()
        self._pins: dict[int, _Pin] = {}
        # No pin expires before this.
        self._next_expiry = math.inf

    @property
    def num_available(self) -> int:
        """Blocks that can be handed out now."""
        return len(self._empty) + len(self._cached) + len(self._cached_and_pinned)

    def allocate(self, count: int) -> list[int]:
        """`count` blocks, held once each; there must be as many available."""
        self.drop_expired_pins()
        blocks = [self._take() for _ in range(count)]
        for block in blocks:
            self._references[block] = 1
        return blocks

    def find(self, name: bytes) -> int | None:
        """The block of these contents."""
        return self._by_name.get(name)

    def hold(self, block: int) -> None:
        """Count one more holder of a block that was found."""
        if self._references[block] == 0:
            del (self._cached_and_pinned if block in self._pins else self._cached)[block]
        self._references[block] += 1

    def release(self, block: int) -> None:
        """Count one holder less."""
        self._references[block] -= 1
        if self._references[block]:
            return
        if block in self._pins:
            pin = self._pins[block]
            pin.until = self._clock() + pin.seconds
            self._next_expiry = min(self._next_expiry, pin.until)
            self._cached_and_pinned[block] = None
        elif block in self._names:
            self._cached[block] = None
        else:
            self._empty.append(block)

    def publish(self, block: int, name: bytes) -> None:
        """Let a held block be found. Where another one has the same contents already, that one stays the one found."""
        if name not in self._by_name and block not in self._names:
            self._by_name[name] = block
            self._names[block] = name

    def pin(self, name: bytes, seconds: float) -> bool:
        """Keep the block of these contents until `seconds` after its last use; whether there is one and room for it."""
        block = self._by_name.get(name)
        if block is None:
            return False
        pin = self._pins.get(block)
        if pin is None:
            if len(self._pins) >= self.num_blocks // 2:
                return False
            pin = self._pins[block] = _Pin(seconds, 0.0)
            if block in self._cached:
                del self._cached[block]
                self._cached_and_pinned[block] = None
        pin.seconds = max(pin.seconds, seconds)
        pin.until = max(pin.until, self._clock() + seconds)
        self._next_expiry = min(self._next_expiry, pin.until)
        return True

    def drop_expired_pins(self) -> None:
        """Leave blocks whose time is over to eviction, before all others."""
        now = self._clock()
        if now < self._next_expiry:
            return
        for block in [block for block in self._cached_and_pinned if self._pins[block].until <= now]:
            del self._pins[block], self._cached_and_pinned[block]
            self._cached[block] = None
            self._cached.move_to_end(block, last=False)
        self._next_expiry = min((self._pins[block].until for block in self._cached_and_pinned), default=math.inf)

    def forget(self) -> None:
        """Forget all contents and pins. Blocks that are held stay held, and become empty when released."""
        self._empty += [*self._cached, *self._cached_and_pinned]
        for names in (self._names, self._by_name, self._cached, self._cached_and_pinned, self._pins):
            names.clear()

    def stats(self) -> PoolStats:
        self.drop_expired_pins()
        pinned, cached = len(self._cached_and_pinned), len(self._cached)
        used = self.num_blocks - 1 - self.num_available
        return PoolStats(used, cached + pinned, pinned, len(self._empty))

    def is_whole(self) -> bool:
        """Whether nobody holds a block, and every block is accounted for exactly once."""
        kept = [*self._cached, *self._cached_and_pinned]
        return (
            not any(self._references)
            and sorted([*self._empty, *kept]) == list(range(NULL_BLOCK + 1, self.num_blocks))
            and set(kept) == set(self._names)
            and {name: block for block, name in self._names.items()} == self._by_name
            and set(self._pins) == set(self._cached_and_pinned)
        )

    def _take(self) -> int:
        if self._empty:
            return self._empty.pop()
        if self._cached:
            block, _ = self._cached.popitem(last=False)
        else:
            block, _ = self._cached_and_pinned.popitem(last=False)
            del self._pins[block]
        del self._by_name[self._names.pop(block)]
        return block
