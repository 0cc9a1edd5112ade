"""Keys and values of everything the running sequences have read, and attention over them.

Each sequence holds a slot of `[kv_heads, capacity, head_dim]` per layer. Slots and capacity grow as sequences need
them; fresh memory is zero pages that the operating system hands out when they are first written.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from kilonova.models.decoder.config import DecoderConfig

_INITIAL_CAPACITY = 256
_KEPT_WHEN_IDLE_BYTES = 64 * 2**20
# One more attention call costs about as much as attending to this many more positions.
_CALL_COST_POSITIONS = 256


class Segment(NamedTuple):
    """Consecutive tokens of one sequence in a step: positions `start` to `start + length` of `slot`."""

    slot: int
    start: int
    length: int


class KVCache:
    """Growing storage for keys and values, `[slots, kv_heads, capacity, head_dim]` each per layer."""

    def __init__(self, config: DecoderConfig, dtype: torch.dtype, device: torch.device | str) -> None:
        self.num_layers = config.num_hidden_layers
        self.num_kv_heads = config.num_key_value_heads
        self.head_dim = config.head_dim
        self.dtype = dtype
        self.device = torch.device(device)
        self._lengths: dict[int, int] = {}
        self.keys, self.values = self._allocate(0, 0)

    @property
    def num_slots(self) -> int:
        """Slots there is storage for."""
        return self.keys[0].shape[0]

    @property
    def capacity(self) -> int:
        """Positions each slot can hold before storage grows."""
        return self.keys[0].shape[2]

    @property
    def num_tokens(self) -> int:
        """Positions in use over all slots."""
        return sum(self._lengths.values())

    def reserve(self, segments: Iterable[Segment]) -> None:
        """Make room for the tokens of `segments` and count them as written."""
        needed_slots, needed_capacity = 0, 0
        for slot, start, length in segments:
            needed_slots = max(needed_slots, slot + 1)
            needed_capacity = max(needed_capacity, start + length)
        if needed_slots > self.num_slots or needed_capacity > self.capacity:
            self._grow(needed_slots, needed_capacity)
        for slot, start, length in segments:
            self._lengths[slot] = start + length

    def release(self, slot: int) -> None:
        """Forget a sequence. Its positions become zeros, so that no stray value can reach the slot's next owner."""
        length = self._lengths.pop(slot, 0)
        if not self._lengths and self._num_bytes() > _KEPT_WHEN_IDLE_BYTES:
            self.keys, self.values = self._allocate(0, 0)
        elif length:
            for tensor in (*self.keys, *self.values):
                tensor[slot, :, :length].zero_()

    def attend(self, segments: list[Segment]) -> StepAttention:
        """The `Attend` of a step whose flat tokens are those of `segments`, one after another; makes room for them."""
        self.reserve(segments)
        return StepAttention(self, segments)

    def _grow(self, needed_slots: int, needed_capacity: int) -> None:
        slots, capacity = max(self.num_slots, 1), max(self.capacity, _INITIAL_CAPACITY)
        while slots < needed_slots:
            slots *= 2
        while capacity < needed_capacity:
            capacity *= 2
        grown = self._allocate(slots, capacity)
        for old, new in zip((self.keys, self.values), grown, strict=True):
            for source, target in zip(old, new, strict=True):
                for slot, length in self._lengths.items():
                    target[slot, :, :length] = source[slot, :, :length]
        self.keys, self.values = grown

    def _allocate(self, slots: int, capacity: int) -> tuple[list[Tensor], list[Tensor]]:
        shape = (slots, self.num_kv_heads, capacity, self.head_dim)
        tensors = [torch.zeros(shape, dtype=self.dtype, device=self.device) for _ in range(2 * self.num_layers)]
        return tensors[: self.num_layers], tensors[self.num_layers :]

    def _num_bytes(self) -> int:
        return 2 * self.num_layers * self.keys[0].nbytes


@dataclass(slots=True)
class _Call:
    """One attention call: flat tokens `rows`, over positions `span` of the slots `slots`."""

    rows: slice
    slots: slice
    span: slice
    mask: Tensor | None
    is_causal: bool
    is_decode: bool


class StepAttention:
    """Writes a step's keys and values into the cache, then attends over each sequence's valid past.

    It is an `Attend`: batch 1, and the flat tokens of all segments along the length. Single-token segments in
    neighbouring slots share one call, padded to the longest; a call is split where padding would cost more than a
    second call. Queries that share a key-value head go in as its query length, so that nothing is repeated.
    """

    def __init__(self, cache: KVCache, segments: list[Segment]) -> None:
        self._cache = cache
        self._segments = segments
        self._calls: dict[int | None, list[_Call]] = {}
        self._rows = self._cache_rows()

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, layer_index: int, sliding_window: int | None
    ) -> Tensor:
        query, key, value = (part[0].transpose(0, 1) for part in (query, key, value))
        return self.attend_flat(query, key, value, layer_index, sliding_window).transpose(0, 1)[None]

    def attend_flat(
        self, query: Tensor, key: Tensor, value: Tensor, layer_index: int, sliding_window: int | None
    ) -> Tensor:
        """The same for token-major `query` `[tokens, heads, D]`, `key` and `value` `[tokens, kv_heads, D]`."""
        keys, values = self._cache.keys[layer_index], self._cache.values[layer_index]
        head_dim = keys.shape[3]
        keys.view(-1, head_dim).index_copy_(0, self._rows, key.reshape(-1, head_dim))
        values.view(-1, head_dim).index_copy_(0, self._rows, value.reshape(-1, head_dim))
        calls = self._calls.get(sliding_window)
        if calls is None:
            calls = self._calls[sliding_window] = self._plan(sliding_window)
        if len(calls) == 1:
            return _attend(calls[0], query, keys, values)
        return torch.cat([_attend(call, query[call.rows], keys, values) for call in calls])

    def _cache_rows(self) -> Tensor:
        """Where each token's heads go in storage seen as rows of `head_dim`: token-major, `[tokens * kv_heads]`."""
        cache = self._cache
        heads, capacity, device = cache.num_kv_heads, cache.capacity, cache.device
        first = torch.tensor([slot * heads * capacity + start for slot, start, _ in self._segments], device=device)
        total = sum(length for _, _, length in self._segments)
        if total > len(self._segments):
            lengths = torch.tensor([length for _, _, length in self._segments], device=device)
            starts = lengths.cumsum(0) - lengths
            first = (first - starts).repeat_interleave(lengths, output_size=total) + torch.arange(total, device=device)
        return (first[:, None] + torch.arange(heads, device=device) * capacity).flatten()

    def _plan(self, window: int | None) -> list[_Call]:
        calls: list[_Call] = []
        run: list[Segment] = []
        row = 0
        low = high = 0
        for segment in self._segments:
            slot, start, length = segment
            if length > 1:
                if run:
                    calls.append(self._decode_call(run, row, window))
                    row, run = row + len(run), []
                calls.append(self._prefill_call(segment, row, window))
                row += length
                continue
            first, end = _first_visible(start, window), start + 1
            if run:
                joined = (len(run) + 1) * (max(high, end) - min(low, first))
                apart = len(run) * (high - low) + (end - first) + _CALL_COST_POSITIONS
                if slot == run[-1].slot + 1 and joined <= apart:
                    run.append(segment)
                    low, high = min(low, first), max(high, end)
                    continue
                calls.append(self._decode_call(run, row, window))
                row += len(run)
            run, low, high = [segment], first, end
        if run:
            calls.append(self._decode_call(run, row, window))
        return calls

    def _decode_call(self, run: list[Segment], row: int, window: int | None) -> _Call:
        firsts = [_first_visible(segment.start, window) for segment in run]
        ends = [segment.start + 1 for segment in run]
        low, high = min(firsts), max(ends)
        mask = None
        if low != max(firsts) or high != min(ends):
            device = self._cache.device
            positions = torch.arange(low, high, device=device)
            hidden = positions >= torch.tensor(ends, device=device)[:, None]
            if low != max(firsts):
                hidden |= positions < torch.tensor(firsts, device=device)[:, None]
            mask = self._additive(hidden)[:, None, None]
        slots = slice(run[0].slot, run[-1].slot + 1)
        return _Call(slice(row, row + len(run)), slots, slice(low, high), mask, is_causal=False, is_decode=True)

    def _prefill_call(self, segment: Segment, row: int, window: int | None) -> _Call:
        slot, start, length = segment
        low, high = _first_visible(start, window), start + length
        is_causal = start == 0 and (window is None or length <= window)
        mask = None
        if not is_causal:
            device = self._cache.device
            own = torch.arange(start, high, device=device)[:, None]
            positions = torch.arange(low, high, device=device)
            hidden = positions > own
            if window is not None:
                hidden |= positions <= own - window
            mask = self._additive(hidden)[None, None]
        rows = slice(row, row + length)
        return _Call(rows, slice(slot, slot + 1), slice(low, high), mask, is_causal, is_decode=False)

    def _additive(self, hidden: Tensor) -> Tensor:
        mask = torch.zeros(hidden.shape, dtype=self._cache.dtype, device=hidden.device)
        return mask.masked_fill_(hidden, float("-inf"))


def _attend(call: _Call, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    key, value = keys[call.slots, :, call.span], values[call.slots, :, call.span]
    if not call.is_decode:
        grouped = query.shape[1] != key.shape[1]
        attended = scaled_dot_product_attention(
            query.transpose(0, 1)[None], key, value, attn_mask=call.mask, is_causal=call.is_causal, enable_gqa=grouped
        )
        return attended[0].transpose(0, 1)
    sequences, heads, head_dim = query.shape
    folded = query.reshape(sequences, key.shape[1], -1, head_dim)
    return scaled_dot_product_attention(folded, key, value, attn_mask=call.mask).reshape(sequences, heads, head_dim)


def _first_visible(position: int, window: int | None) -> int:
    return 0 if window is None else max(0, position - window + 1)
