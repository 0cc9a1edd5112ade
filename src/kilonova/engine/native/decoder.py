"""A decoder whose steps over a few tokens are one call of the native kernels."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from kilonova.engine.joined_linear import JoinedLinear
from kilonova.engine.kv_cache import KVCache
from kilonova.engine.low_rank import AdapterWeights
from kilonova.engine.native import library
from kilonova.engine.native.weights import PackedLinear, pack_float
from kilonova.models.decoder.config import DecoderConfig
from kilonova.models.decoder.model import DecoderLayer, DecoderStack

_INITIAL_ROTARY_POSITIONS = 1024


class NativeDecoder:
    """Runs single tokens of many sequences, or a few of each, through `stack`.

    It works in float32 from weights and a cache of any dtype it supports, and gives a token the same result, to the
    last bit, whatever tokens are computed with it. The weights are shared with, and must outlive, what they came from.
    """

    def __init__(
        self,
        context: library.Context,
        config: DecoderConfig,
        stack: DecoderStack,
        layers: Sequence[NativeLayer],
        cache: KVCache,
    ) -> None:
        self.hidden_size = config.hidden_size
        self._context = context
        self._stack = stack
        tables = [group.table for group in cache.blocks.groups]
        self._table_addresses = (ctypes.c_void_p * len(tables))(*(table.ctypes.data for table in tables))
        self._table_stride = tables[0].shape[1]
        embedding = pack_float(stack.embed_tokens.weight.detach())
        norm = stack.norm.weight.detach().float()
        self._layers = (library.Layer * len(layers))(*(layer.struct(cache) for layer in layers))
        self._model = library.Model(
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_heads=config.num_attention_heads,
            num_kv_heads=config.num_key_value_heads,
            head_dim=config.head_dim,
            num_layers=config.num_hidden_layers,
            block_size=cache.keys[0].shape[2],
            eps=config.rms_norm_eps,
            cache_kind=library.KINDS[str(cache.dtype).removeprefix("torch.")],
            layers=self._layers,
            embedding=embedding.struct,
            final_norm=norm.data_ptr(),
        )
        self._kept = (layers, cache, embedding, norm)
        self._rotary = self._rotary_table(min(_INITIAL_ROTARY_POSITIONS, config.max_position_embeddings))

    def step(
        self,
        token_ids: Sequence[int],
        positions: Sequence[int],
        slots: Sequence[int],
        adapters: Sequence[AdapterWeights | None] = (),
    ) -> Tensor:
        """Final hidden states of the tokens, float32 `[N, hidden]`.

        They stand at `positions` of the sequences in `slots`, for which the cache holds blocks already; several of
        one sequence come in order. `adapters` are those of the tokens; empty where none has one.
        """
        while max(positions) >= self._rotary.shape[0]:
            self._rotary = self._rotary_table(2 * self._rotary.shape[0])
        count = len(token_ids)
        numbers = (ctypes.c_int32 * (3 * count))(*token_ids, *positions, *slots)
        address = ctypes.addressof(numbers)
        hidden = torch.empty(count, self.hidden_size)
        batch = library.Batch(
            count,
            address,
            address + 4 * count,
            self._rotary.data_ptr(),
            address + 8 * count,
            self._table_addresses,
            self._table_stride,
        )
        batch.hidden = hidden.data_ptr()
        if adapters:
            distinct = {adapter: number for number, adapter in enumerate(dict.fromkeys(filter(None, adapters)))}
            of_tokens = np.array([-1 if one is None else distinct[one] for one in adapters], dtype=np.int32)
            addresses = (ctypes.c_void_p * len(distinct))(*(adapter.address for adapter in distinct))
            batch.adapters, batch.low_rank = of_tokens.ctypes.data, addresses
            batch.max_rank = max(adapter.max_rows for adapter in distinct)
        self._context.decode(self._model, batch, torch.get_num_threads())
        return hidden

    def _rotary_table(self, positions: int) -> Tensor:
        """cos and sin `[positions, 2, head_dim]`, the first half of sin negated."""
        cos, sin = self._stack.rotary(torch.arange(positions), torch.float32)
        sin[:, : sin.shape[1] // 2].neg_()
        return torch.stack((cos, sin), dim=1)


class NativeLayer:
    """What one layer hands to the native kernels."""

    def __init__(
        self, layer: DecoderLayer, qkv: JoinedLinear, output: JoinedLinear, gate_up: JoinedLinear, down: JoinedLinear
    ) -> None:
        attention = layer.self_attn
        self._index = attention.layer_index
        self._window = attention.sliding_window or 0
        self._products = [_packed(joined) for joined in (qkv, output, gate_up, down)]
        norms = (layer.input_layernorm, layer.post_attention_layernorm, attention.q_norm, attention.k_norm)
        self._norms = [None if norm is None else norm.weight.detach().float() for norm in norms]

    def struct(self, cache: KVCache) -> library.Layer:
        """The layer over its part of `cache`."""
        return library.Layer(
            *(None if norm is None else norm.data_ptr() for norm in self._norms),
            *(product.struct for product in self._products),
            cache.keys[self._index].data_ptr(),
            cache.values[self._index].data_ptr(),
            self._window,
            cache.group_of_layer[self._index],
        )


def _packed(joined: JoinedLinear) -> PackedLinear:
    assert joined.packed is not None
    return joined.packed


def unsupported(config: DecoderConfig, dtypes: set[torch.dtype], context: library.Context) -> str:
    """Why the native kernels cannot run such a decoder; empty if they can."""
    lanes = context.lanes
    if others := dtypes - {torch.float32, torch.bfloat16}:
        return f"weights of {str(others.pop()).removeprefix('torch.')}"
    if config.moe_layers:
        return "layers of experts"
    if config.head_dim % (2 * lanes):
        return f"a head_dim that is no multiple of {2 * lanes}"
    if config.hidden_size % lanes or config.intermediate_size % lanes:
        return f"a hidden_size or intermediate_size that is no multiple of {lanes}"
    return ""
