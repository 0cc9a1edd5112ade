"""Runs a decoder for one step over the tokens of many sequences at once.

All tokens of a step lie in one flat row: projections and feed-forwards see them together, attention splits them by
sequence. Projections that share an input are one matrix product here, and weights are stored input-major, `[in, out]`,
which CPU libraries multiply by a few rows up to twice as fast. The model's own parameters become views of these
weights, so that nothing but a small tied output projection is stored twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, rms_norm, silu

from kilonova.engine.kv_cache import KVCache, Segment, StepAttention
from kilonova.engine.sampling import RawLogprob, logprobs
from kilonova.models.decoder.model import Decoder, DecoderLayer
from kilonova.nn.mlp import GatedMLP

# Logits of a prompt exist for this many values at a time, 32 MiB in float32.
_PROMPT_LOGIT_VALUES = 8 * 2**20
_INITIAL_ROTARY_POSITIONS = 1024
# A tied output projection up to this size gets an input-major copy of its own beside the embedding.
_TIED_COPY_BYTES = 64 * 2**20


class StepTokens(NamedTuple):
    """Tokens of one sequence to read in this step, at positions from `start` on."""

    slot: int
    start: int
    token_ids: Sequence[int]


class ModelRunner:
    """A decoder, its cache, and the step that reads tokens into it."""

    def __init__(self, model: Decoder) -> None:
        weight = model.lm_head.weight
        self.device = weight.device
        self.cache = KVCache(model.config, weight.dtype, weight.device)
        self._model = model.eval()
        self._layers = [_FusedLayer(layer) for layer in model.model.layers if isinstance(layer, DecoderLayer)]
        tied = weight is model.model.embed_tokens.weight
        if not tied:
            self._head = _input_major([model.lm_head])
        elif weight.nbytes <= _TIED_COPY_BYTES:
            self._head = weight.detach().t().contiguous()
        else:
            self._head = weight.detach().t()
        self._rotary = self._rotary_table(min(_INITIAL_ROTARY_POSITIONS, model.config.max_position_embeddings))

    @torch.inference_mode()
    def step(self, tokens: Sequence[StepTokens]) -> Tensor:
        """Read tokens into the cache; final hidden states `[sum of lengths, hidden]`, in the order given."""
        segments = [Segment(slot, start, len(token_ids)) for slot, start, token_ids in tokens]
        attend = self.cache.attend(segments)
        ids = torch.tensor([token for one in tokens for token in one.token_ids], device=self.device)
        positions = torch.tensor(
            [position for _, start, length in segments for position in range(start, start + length)],
            device=self.device,
        )
        end = max(start + length for _, start, length in segments)
        if end > len(self._rotary):
            self._rotary = self._rotary_table(2 * end)
        cos, signed_sin = self._rotary[positions].unbind(dim=1)
        decoder = self._model.model
        x = embedding(ids, decoder.embed_tokens.weight)
        for layer in self._layers:
            x = layer(x, cos, signed_sin, attend)
        return decoder.norm.forward(x)

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """Next-token logits `[N, vocab]` of hidden states `[N, hidden]`."""
        return torch.mm(hidden, self._head)

    @torch.inference_mode()
    def prompt_logprobs(self, hidden: Tensor, next_ids: Sequence[int], top: int) -> list[RawLogprob]:
        """Log-probabilities of the tokens that follow each of `hidden` `[N, hidden]`, a bounded part at a time."""
        rows = max(1, _PROMPT_LOGIT_VALUES // self._model.config.vocab_size)
        result: list[RawLogprob] = []
        for first in range(0, len(next_ids), rows):
            part = slice(first, first + rows)
            result += logprobs(self.logits(hidden[part]), next_ids[part], top)
        return result

    def _rotary_table(self, positions: int) -> Tensor:
        """cos and sin `[positions, 2, 1, head_dim]`; with the first half of sin negated, rotating takes a roll only."""
        cos, sin = self._model.model.rotary(torch.arange(positions, device=self.device), self.cache.dtype)
        sin[:, : sin.shape[1] // 2].neg_()
        return torch.stack((cos, sin), dim=1)[:, :, None]


class _FusedLayer:
    """A decoder layer over flat tokens, with as few tensor operations as eager mode allows."""

    def __init__(self, layer: DecoderLayer) -> None:
        attention = layer.self_attn
        self.index = attention.layer_index
        self.window = attention.sliding_window
        self.head_dim = attention.head_dim
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        self.qkv_weight = _input_major(projections)
        self.qkv_bias = _join_biases(projections)
        self.num_kv_heads = attention.k_proj.out_features // self.head_dim
        self.num_rotated = attention.q_proj.out_features // self.head_dim + self.num_kv_heads
        self.qk_norm_weight: Tensor | None = None
        if attention.q_norm is not None and attention.k_norm is not None:
            self.qk_norm_eps = attention.q_norm.eps
            query_norm = attention.q_norm.weight.detach().expand(self.num_rotated - self.num_kv_heads, -1)
            key_norm = attention.k_norm.weight.detach().expand(self.num_kv_heads, -1)
            self.qk_norm_weight = torch.cat((query_norm, key_norm))
        self.output_weight = _input_major([attention.o_proj])
        self.output_bias = attention.o_proj.bias
        self.input_norm = layer.input_layernorm
        self.mlp_norm = layer.post_attention_layernorm
        self.mlp = layer.mlp
        if isinstance(layer.mlp, GatedMLP):
            self.gate_up_weight = _input_major([layer.mlp.gate_proj, layer.mlp.up_proj])
            self.down_weight = _input_major([layer.mlp.down_proj])

    def __call__(self, x: Tensor, cos: Tensor, signed_sin: Tensor, attend: StepAttention) -> Tensor:
        """`x` is `[tokens, hidden]`; `cos` and `signed_sin` are `[tokens, 1, head_dim]`."""
        normed = self.input_norm.forward(x)
        if self.qkv_bias is None:
            heads = torch.mm(normed, self.qkv_weight).view(len(x), -1, self.head_dim)
        else:
            heads = torch.addmm(self.qkv_bias, normed, self.qkv_weight).view(len(x), -1, self.head_dim)
        rotated = heads[:, : self.num_rotated]
        if self.qk_norm_weight is not None:
            rotated = _rms_norm(rotated, self.qk_norm_weight, self.qk_norm_eps)
        rotated = torch.addcmul(rotated * cos, rotated.roll(self.head_dim // 2, dims=-1), signed_sin)
        query, key = rotated[:, : -self.num_kv_heads], rotated[:, -self.num_kv_heads :]
        value = heads[:, self.num_rotated :]
        attended = attend.attend_flat(query, key, value, self.index, self.window).reshape(len(x), -1)
        x = torch.addmm(x, attended, self.output_weight)
        if self.output_bias is not None:
            x += self.output_bias
        normed = self.mlp_norm.forward(x)
        if not isinstance(self.mlp, GatedMLP):
            return x + self.mlp.forward(normed)
        gate, up = torch.mm(normed, self.gate_up_weight).chunk(2, dim=-1)
        return torch.addmm(x, silu(gate) * up, self.down_weight)


def _rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`RMSNorm` with a weight that differs between heads."""
    if x.dtype == torch.float32:
        return rms_norm(x, x.shape[-1:], None, eps) * weight
    return rms_norm(x.float(), x.shape[-1:], None, eps).to(x.dtype) * weight


def _input_major(layers: Sequence[nn.Linear]) -> Tensor:
    """The weights side by side, `[in, sum of out]`; each layer's own becomes a view of its columns."""
    joined = torch.cat([layer.weight.detach().t() for layer in layers], dim=1)
    for layer, part in zip(layers, joined.split([layer.out_features for layer in layers], dim=1), strict=True):
        layer.weight.data = part.t()
    return joined


def _join_biases(layers: Sequence[nn.Linear]) -> Tensor | None:
    biases = [layer.bias.detach() for layer in layers if layer.bias is not None]
    return torch.cat(biases) if biases else None
