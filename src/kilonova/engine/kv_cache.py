"""Keys and values of everything the running sequences have read, in blocks, and attention over them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import psutil
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from kilonova.core.errors import ConfigError, EngineError
from kilonova.engine.block_tables import BLOCK_SIZE, BlockTables, GroupSize, WindowGroup
from kilonova.models.decoder.config import DecoderConfig

# A windowed layer's pool has room for this many tokens of a prompt being read, and as much again for its prefixes.
_WINDOWED_CHUNK = 512
# One more attention call costs about as much as attending to this many more positions.
_CALL_COST_POSITIONS = 256
# Masks of a prompt over its past have at most this many entries, 16 MiB in float32.
_MASK_VALUES = 4 * 2**20


class Segment(NamedTuple):
    """Consecutive tokens of one sequence in a step: positions `start` to `start + length` of `slot`."""

    slot: int
    start: int
    length: int


class KVCache:
    """Storage for keys and values in blocks of 16 positions, and the tables that say which sequence has which.

    `keys[layer]` and `values[layer]` are contiguous, `[num_blocks, kv_heads, 16, head_dim]`. Layers of equal sliding
    window form a group, `blocks.groups[group_of_layer[layer]]`, and share block ids. The default size is what
    `max_num_seqs` sequences of `max_context` tokens need, but at most a quarter of the machine's memory, or 90 % of
    what is free on a GPU; main memory is only taken as blocks are written. `num_bytes` sets another limit. `max_length`
    is the longest sequence there is room for. Raises ConfigError where that is none.
    """

    def __init__(
        self,
        config: DecoderConfig,
        dtype: torch.dtype,
        device: torch.device | str,
        *,
        max_num_seqs: int = 32,
        max_context: int | None = None,
        num_bytes: int | None = None,
    ) -> None:
        self.num_kv_heads = config.num_key_value_heads
        self.head_dim = config.head_dim
        self.dtype = dtype
        self.device = torch.device(device)
        windows = [config.window(layer) for layer in range(config.num_hidden_layers)]
        different = list(dict.fromkeys(windows))
        self.group_of_layer = [different.index(window) for window in windows]
        context = max_context or config.max_position_embeddings
        limit = _default_limit(self.device) if num_bytes is None else num_bytes
        position = 2 * self.num_kv_heads * self.head_dim * dtype.itemsize
        block_bytes = [BLOCK_SIZE * windows.count(window) * position for window in different]
        sizes = _divide(different, block_bytes, max_num_seqs, context, limit)
        full = [size.num_blocks - 1 for size in sizes if size.window is None]
        self.max_length = min([context, *(count * BLOCK_SIZE for count in full)])
        self.blocks = BlockTables(sizes, max_num_seqs, self.max_length)
        self.num_bytes = sum(size.num_blocks * each for size, each in zip(sizes, block_bytes, strict=True))
        shape = (self.num_kv_heads, BLOCK_SIZE, self.head_dim)
        # Also where a step runs in inference mode, whose tensors could not be written to in another.
        with torch.inference_mode(False):
            self._storage = [
                torch.empty((windows.count(size.window), 2, size.num_blocks, *shape), dtype=dtype, device=device)
                for size in sizes
            ]
            for storage in self._storage:
                storage[:, :, 0].zero_()
            self._scratch = torch.empty(0, BLOCK_SIZE * self.head_dim, dtype=dtype, device=device)
        layers = [
            self._storage[group][self.group_of_layer[:layer].count(group)]
            for layer, group in enumerate(self.group_of_layer)
        ]
        self.keys = [layer[0] for layer in layers]
        self.values = [layer[1] for layer in layers]
        # Keys, then values, as rows of a block of one head.
        self._rows = [layer.view(-1, BLOCK_SIZE * self.head_dim) for layer in layers]

    @property
    def num_tokens(self) -> int:
        """Positions in use over all slots."""
        return self.blocks.num_tokens

    def reserve(self, segments: Iterable[Segment]) -> None:
        """Hold blocks for the tokens of `segments`, where the scheduler has not already, and make them fit to read.

        Raises EngineError where blocks run out.
        """
        for slot, start, length in segments:
            if not self.blocks.reserve(slot, start, length):
                raise EngineError(f"the key-value cache of {self.num_bytes} bytes is full")
        for group, storage in zip(self.blocks.groups, self._storage, strict=True):
            if group.partly_written:
                # What is not yet written is read along under a mask, where a value that is no number would show.
                index = torch.tensor(group.partly_written, device=self.device)
                storage.index_fill_(2, index, 0)
                group.partly_written.clear()

    def release(self, slot: int) -> None:
        """Forget a sequence."""
        self.blocks.release(slot)

    def attend(self, segments: list[Segment]) -> StepAttention:
        """The `Attend` of a step whose flat tokens are those of `segments`, one after another; makes room for them."""
        self.reserve(segments)
        return StepAttention(self, segments)

    def gather(self, layer: int, rows: Tensor) -> Tensor:
        """Blocks of single heads `[len(rows), 16 * head_dim]`, keys' and then values'; valid until the next call."""
        if len(self._scratch) < len(rows):
            with torch.inference_mode(False):
                self._scratch = self._scratch.new_empty(len(rows) * 5 // 4, self._scratch.shape[1])
        return torch.index_select(self._rows[layer], 0, rows, out=self._scratch[: len(rows)])


def _default_limit(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] * 9 // 10
    return psutil.virtual_memory().total // 4


def _divide(
    windows: Sequence[int | None], block_bytes: Sequence[int], max_num_seqs: int, context: int, limit: int
) -> list[GroupSize]:
    """Blocks for each group: what it could use, and where that exceeds `limit` bytes the same share of it for all."""
    wanted, least = [], []
    for window in windows:
        blocks = -(-context // BLOCK_SIZE)
        if window is not None:
            blocks = min(blocks, 2 * (-(-(window + _WINDOWED_CHUNK) // BLOCK_SIZE) + 1))
        wanted.append(1 + max_num_seqs * blocks)
        least.append(2 if window is None else 1 + min(blocks, -(-window // BLOCK_SIZE) + 1))
    needed = sum(count * each for count, each in zip(least, block_bytes, strict=True))
    if needed > limit:
        raise ConfigError(f"kv_cache_bytes: {limit} is too little for this model; the least is {needed}")
    extra = sum((most - few) * each for most, few, each in zip(wanted, least, block_bytes, strict=True))
    share = min(1.0, (limit - needed) / extra) if extra > 0 else 0.0
    counts = [few + max(0, int((most - few) * share)) for most, few in zip(wanted, least, strict=True)]
    return [GroupSize(window, count) for window, count in zip(windows, counts, strict=True)]


@dataclass(slots=True)
class _Call:
    """One attention call: flat tokens `tokens` over their sequences' blocks.

    `blocks` are the rows to gather, for `sequences` of equal `span` in the gathered positions; None where a prompt's
    first chunk sees nothing but itself.
    """

    tokens: slice
    blocks: Tensor | None
    sequences: int
    span: slice
    mask: Tensor | None
    is_decode: bool


class StepAttention:
    """Writes a step's keys and values into the cache, then attends over each sequence's valid past.

    It is an `Attend`: batch 1, and the flat tokens of all segments along the length. Consecutive single-token segments
    share one call, padded to the longest; a call is split where padding would cost more than a second call. Queries
    that share a key-value head go in as its query length, so that nothing is repeated. What a call needs is worked out
    once for all layers of a group.
    """

    def __init__(self, cache: KVCache, segments: list[Segment]) -> None:
        self._cache = cache
        self._segments = segments
        self._plans: dict[int, tuple[Tensor, list[_Call]]] = {}

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, layer_index: int, sliding_window: int | None
    ) -> Tensor:
        query, key, value = (part[0].transpose(0, 1) for part in (query, key, value))
        return self.attend_flat(query, key, value, layer_index, sliding_window).transpose(0, 1)[None]

    def attend_flat(
        self, query: Tensor, key: Tensor, value: Tensor, layer_index: int, sliding_window: int | None
    ) -> Tensor:
        """The same for token-major `query` `[tokens, heads, D]`, `key` and `value` `[tokens, kv_heads, D]`."""
        cache = self._cache
        group = cache.group_of_layer[layer_index]
        plan = self._plans.get(group)
        if plan is None:
            plan = self._plans[group] = self._plan(cache.blocks.groups[group])
        places, calls = plan
        head_dim = cache.head_dim
        cache.keys[layer_index].view(-1, head_dim).index_copy_(0, places, key.reshape(-1, head_dim))
        cache.values[layer_index].view(-1, head_dim).index_copy_(0, places, value.reshape(-1, head_dim))
        if len(calls) == 1:
            return self._attend(calls[0], query, key, value, layer_index)
        return torch.cat([self._attend(call, query[call.tokens], key, value, layer_index) for call in calls])

    def _attend(self, call: _Call, query: Tensor, key: Tensor, value: Tensor, layer_index: int) -> Tensor:
        cache = self._cache
        heads, kv_heads, head_dim = query.shape[1], cache.num_kv_heads, cache.head_dim
        if call.blocks is None:
            keys, values = (part[call.tokens].transpose(0, 1)[None] for part in (key, value))
        else:
            gathered = cache.gather(layer_index, call.blocks).view(2, call.sequences, kv_heads, -1, head_dim)
            keys, values = gathered[:, :, :, call.span].unbind()
        if call.is_decode:
            folded = query.reshape(call.sequences, kv_heads, -1, head_dim)
            return scaled_dot_product_attention(folded, keys, values, attn_mask=call.mask).reshape(-1, heads, head_dim)
        attended = scaled_dot_product_attention(
            query.transpose(0, 1)[None],
            keys,
            values,
            attn_mask=call.mask,
            is_causal=call.blocks is None,
            enable_gqa=heads != kv_heads,
        )
        return attended[0].transpose(0, 1)

    def _plan(self, group: WindowGroup) -> tuple[Tensor, list[_Call]]:
        """Where each token's heads go in storage seen as rows of `head_dim`, `[tokens * kv_heads]`, and the calls."""
        kv_heads = self._cache.num_kv_heads
        slots, starts, lengths = np.array(self._segments).T
        tokens = int(lengths.sum())
        if tokens > len(slots):
            first_tokens = lengths.cumsum() - lengths
            slots = slots.repeat(lengths)
            positions = (starts - first_tokens).repeat(lengths) + np.arange(tokens)
        else:
            positions = starts
        blocks = group.table[slots, positions // BLOCK_SIZE].astype(np.int64)
        rows = (blocks * kv_heads * BLOCK_SIZE + positions % BLOCK_SIZE)[:, None] + np.arange(kv_heads) * BLOCK_SIZE
        return self._to_device(rows.ravel()), self._calls(group)

    def _calls(self, group: WindowGroup) -> list[_Call]:
        calls: list[_Call] = []
        run: list[Segment] = []
        token = 0
        low = high = 0

        def end_run() -> None:
            nonlocal token, run
            if run:
                calls.append(self._decode_call(group, run, token))
                token, run = token + len(run), []

        for segment in self._segments:
            _, start, length = segment
            if length > 1:
                end_run()
                calls += self._prefill_calls(group, segment, token)
                token += length
                continue
            first, end = _first_visible(start, group.window), start + 1
            joined = (len(run) + 1) * (max(high, end) - min(low, first))
            apart = len(run) * (high - low) + (end - first) + _CALL_COST_POSITIONS
            if run and joined <= apart:
                low, high = min(low, first), max(high, end)
            else:
                end_run()
                low, high = first, end
            run.append(segment)
        end_run()
        return calls

    def _decode_call(self, group: WindowGroup, run: list[Segment], token: int) -> _Call:
        ends = np.array([segment.start + 1 for segment in run])
        firsts = np.zeros_like(ends) if group.window is None else np.maximum(0, ends - group.window)
        low, high = int(firsts.min()), int(ends.max())
        mask = None
        if low != firsts.max() or high != ends.min():
            positions = np.arange(low, high)
            hidden = (positions >= ends[:, None]) | (positions < firsts[:, None])
            mask = self._additive(hidden)[:, None, None]
        blocks, span = self._blocks(group, [segment.slot for segment in run], low, high)
        return _Call(slice(token, token + len(run)), blocks, len(run), span, mask, is_decode=True)

    def _prefill_calls(self, group: WindowGroup, segment: Segment, token: int) -> list[_Call]:
        """One call, or several where the mask of all would be large."""
        slot, start, length = segment
        window = group.window
        if start == 0 and (window is None or length <= window):
            return [_Call(slice(token, token + length), None, 1, slice(None), None, is_decode=False)]
        calls = []
        piece = max(BLOCK_SIZE, _MASK_VALUES // (start + length - _first_visible(start, window)))
        for begin in range(start, start + length, piece):
            low, high = _first_visible(begin, window), min(begin + piece, start + length)
            own = np.arange(begin, high)[:, None]
            positions = np.arange(low, high)
            hidden = positions > own
            if window is not None:
                hidden |= positions <= own - window
            blocks, span = self._blocks(group, [slot], low, high)
            tokens = slice(token + begin - start, token + high - start)
            calls.append(_Call(tokens, blocks, 1, span, self._additive(hidden)[None, None], is_decode=False))
        return calls

    def _blocks(self, group: WindowGroup, slots: list[int], low: int, high: int) -> tuple[Tensor, slice]:
        """Rows to gather for positions `low` to `high`, keys' and then values', and where these lie in the outcome."""
        kv_heads = self._cache.num_kv_heads
        first = low // BLOCK_SIZE
        table = group.table[slots, first : -(-high // BLOCK_SIZE)].astype(np.int64)
        rows = table[:, None] * kv_heads + np.arange(kv_heads)[:, None]
        both = np.stack((rows, rows + group.pool.num_blocks * kv_heads))
        return self._to_device(both.ravel()), slice(low - first * BLOCK_SIZE, high - first * BLOCK_SIZE)

    def _additive(self, hidden: np.ndarray) -> Tensor:
        mask = torch.zeros(hidden.shape, dtype=self._cache.dtype, device=self._cache.device)
        return mask.masked_fill_(self._to_device(hidden), float("-inf"))

    def _to_device(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self._cache.device, non_blocking=True)


def _first_visible(position: int, window: int | None) -> int:
    return 0 if window is None else max(0, position - window + 1)
