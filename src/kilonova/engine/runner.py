"""Runs a decoder for one step over the tokens of many sequences at once.

On a CPU with the native kernels, sequences that add a token or a few and short prompts go through those, in one call;
long prompts, and everything where there are no such kernels, go through PyTorch. There the tokens of a step lie in one
flat row: projections and feed-forwards see them together, attention splits them by sequence, and projections that share
an input are one matrix product.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, rms_norm, silu

from kilonova.core.types import SamplingParams
from kilonova.engine import sampling
from kilonova.engine.joined_linear import JoinedLinear
from kilonova.engine.kv_cache import KVCache, Segment, StepAttention
from kilonova.engine.low_rank import DOWN, GATE_UP, OUTPUT, QKV, AdapterWeights, adaptable_shapes
from kilonova.engine.native.decoder import NativeDecoder, NativeLayer, unsupported
from kilonova.engine.native.library import Context, instruction_sets
from kilonova.engine.native.sampling import sample as native_sample
from kilonova.engine.native.weights import gate, multiply
from kilonova.engine.native.weights import rms_norm as native_rms_norm
from kilonova.engine.sampling import RawLogprob, logprobs
from kilonova.models.adapter import AdapterTensors
from kilonova.models.decoder.model import Decoder, DecoderLayer
from kilonova.nn.mlp import GatedMLP
from kilonova.nn.norm import RMSNorm
from kilonova.nn.quantized import QuantizedLinear

logger = logging.getLogger(__name__)

# Sequences that add at most so many tokens in a step go through the native kernels. Longer ones do as long as they have
# together no more tokens than the second number; from there on PyTorch's products win.
_NATIVE_LENGTH = 16
_NATIVE_PROMPT_TOKENS = 128
# The most rows whose logits the native kernels compute.
_NATIVE_ROWS = 64
# Logits of a prompt exist for this many values at a time, 32 MiB in float32.
_PROMPT_LOGIT_VALUES = 8 * 2**20
_INITIAL_ROTARY_POSITIONS = 1024
# A tied output projection up to this size gets an input-major copy of its own beside the embedding.
_TIED_COPY_BYTES = 64 * 2**20


class StepTokens(NamedTuple):
    """Tokens of one sequence to read in this step, at positions from `start` on, with an adapter or without."""

    slot: int
    start: int
    token_ids: Sequence[int]
    adapter: AdapterWeights | None = None


# Rows of a step, and what adds to them.
AdaptedRows = tuple[slice, AdapterWeights]


class ModelRunner:
    """A decoder, its cache (one of the default size if none is given), and the step that reads tokens into it.

    It computes in the dtype of the cache, which may be float32 where the weights are bfloat16.
    `native` False does without the native kernels even where they are. The model is taken over: its weights are stored
    anew, with the model's own parameters as views, and only a small tied output projection is stored twice.
    """

    def __init__(self, model: Decoder, cache: KVCache | None = None, *, native: bool = True) -> None:
        weight = model.model.embed_tokens.weight
        self.device = weight.device
        self.cache = cache or KVCache(model.config, weight.dtype, weight.device)
        self._model = model.eval()
        self.adaptable_shapes = adaptable_shapes(model)
        self._kernels = _native_kernels(model, self.cache) if native else None
        layers = [layer for layer in model.model.layers if isinstance(layer, DecoderLayer)]
        self._layers = [_FusedLayer(layer, self._kernels, self.cache.dtype) for layer in layers]
        self._head = self._output_projection(model)
        self._native: NativeDecoder | None = None
        if self._kernels is not None and all(fused.is_packed for fused in self._layers):
            native_layers = [fused.native(layer) for fused, layer in zip(self._layers, layers, strict=True)]
            self._native = NativeDecoder(self._kernels, model.config, model.model, native_layers, self.cache)
        self._rotary = self._rotary_table(min(_INITIAL_ROTARY_POSITIONS, model.config.max_position_embeddings))

    @property
    def instructions(self) -> str | None:
        """The instruction set of the native kernels in use; None where PyTorch computes everything."""
        return None if self._kernels is None else self._kernels.instructions

    @property
    def weight_bytes(self) -> int:
        """Bytes of weights that a step of one token reads, all experts included."""
        if self._native is None or self._head.packed is None:
            return sum(tensor.nbytes for tensor in (*self._model.parameters(), *self._model.buffers()))
        return sum(joined.packed.nbytes for joined in self._products() if joined.packed is not None)

    def _products(self) -> Iterator[JoinedLinear]:
        for layer in self._layers:
            yield from (layer.qkv, layer.output, layer.gate_up, layer.down)
        yield self._head

    def adapter(self, tensors: AdapterTensors) -> AdapterWeights:
        """A LoRA adapter over the layers of `adaptable_shapes`, in the model's dtype, ready for steps."""
        return AdapterWeights(
            tensors,
            self.adaptable_shapes,
            len(self._layers),
            self._model.model.embed_tokens.weight.dtype,
            self.device,
            native=self._native is not None,
        )

    @torch.inference_mode()
    def step(self, tokens: Sequence[StepTokens]) -> Tensor:
        """Read tokens into the cache; final hidden states `[sum of lengths, hidden]`, in the order given."""
        if self._native is None:
            return self._step(tokens)
        lengths = [len(one.token_ids) for one in tokens]
        num_long = sum(length for length in lengths if length > _NATIVE_LENGTH)
        longest = max(lengths) if num_long <= _NATIVE_PROMPT_TOKENS else _NATIVE_LENGTH
        parts: list[Tensor] = []
        for is_native, group in itertools.groupby(tokens, lambda one: len(one.token_ids) <= longest):
            part = list(group)
            parts.append(self._native_step(self._native, part) if is_native else self._step(part).float())
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """Next-token logits `[N, vocab]` of hidden states `[N, hidden]`."""
        if self._kernels is not None and self._head.packed is not None and len(hidden) <= _NATIVE_ROWS:
            return multiply(self._kernels, self._head.packed, hidden.float())
        return self._head(hidden.to(self.cache.dtype))

    def _native_step(self, native: NativeDecoder, tokens: Sequence[StepTokens]) -> Tensor:
        self.cache.reserve([Segment(one.slot, one.start, len(one.token_ids)) for one in tokens])
        positions = [one.start + offset for one in tokens for offset in range(len(one.token_ids))]
        slots = [one.slot for one in tokens for _ in one.token_ids]
        adapters: list[AdapterWeights | None] = []
        if any(one.adapter is not None for one in tokens):
            adapters = [one.adapter for one in tokens for _ in one.token_ids]
        return native.step([token for one in tokens for token in one.token_ids], positions, slots, adapters)

    def _step(self, tokens: Sequence[StepTokens]) -> Tensor:
        segments = [Segment(one.slot, one.start, len(one.token_ids)) for one in tokens]
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
        x = embedding(ids, decoder.embed_tokens.weight).to(self.cache.dtype)
        adapters = _adapted_rows(tokens)
        for layer in self._layers:
            x = layer(x, cos, signed_sin, attend, adapters)
        return _norm(decoder.norm, x, self._kernels)

    def _output_projection(self, model: Decoder) -> JoinedLinear:
        head = model.get_submodule("lm_head")
        assert isinstance(head, nn.Linear | QuantizedLinear)
        if isinstance(head, QuantizedLinear) or head.weight is not model.model.embed_tokens.weight:
            return JoinedLinear([head], self._kernels)
        # The look-up needs the rows as they are: a copy stands in where another order is faster, if it is small.
        tied = nn.Linear(head.in_features, head.out_features, bias=False, device="meta")
        copied = self._kernels is None and head.weight.nbytes <= _TIED_COPY_BYTES
        tied.weight = nn.Parameter(head.weight.detach().clone() if copied else head.weight.detach(), False)
        return JoinedLinear([tied], self._kernels)

    def sample(self, logits: Tensor, params: Sequence[SamplingParams], draws: Sequence[tuple[int, int]]) -> list[int]:
        """One token a row of logits, as `sampling.sample` chooses it."""
        if self._kernels is None or logits.dtype != torch.float32:
            return sampling.sample(logits, params, draws)
        return native_sample(self._kernels, logits, params, draws)

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

    def __init__(self, layer: DecoderLayer, kernels: Context | None, dtype: torch.dtype) -> None:
        attention = layer.self_attn
        self.kernels = kernels
        self.index = attention.layer_index
        self.window = attention.sliding_window
        self.head_dim = attention.head_dim
        self.qkv = JoinedLinear((attention.q_proj, attention.k_proj, attention.v_proj), kernels)
        self.num_kv_heads = attention.k_proj.out_features // self.head_dim
        self.num_rotated = attention.q_proj.out_features // self.head_dim + self.num_kv_heads
        self.qk_norm_weight: Tensor | None = None
        if attention.q_norm is not None and attention.k_norm is not None:
            self.qk_norm_eps = attention.q_norm.eps
            query_norm = attention.q_norm.weight.detach().expand(self.num_rotated - self.num_kv_heads, -1)
            key_norm = attention.k_norm.weight.detach().expand(self.num_kv_heads, -1)
            self.qk_norm_weight = torch.cat((query_norm, key_norm)).to(dtype)
        self.output = JoinedLinear((attention.o_proj,), kernels)
        self.input_norm = layer.input_layernorm
        self.mlp_norm = layer.post_attention_layernorm
        self.mlp = layer.mlp
        if isinstance(layer.mlp, GatedMLP):
            self.gate_up = JoinedLinear((layer.mlp.gate_proj, layer.mlp.up_proj), kernels, interleaved=True)
            self.down = JoinedLinear((layer.mlp.down_proj,), kernels)

    @property
    def is_packed(self) -> bool:
        """Whether the native kernels can read all of it; they have no form for fp8, for one."""
        return all(joined.packed is not None for joined in (self.qkv, self.output, self.gate_up, self.down))

    def native(self, layer: DecoderLayer) -> NativeLayer:
        """What the native kernels read of it."""
        return NativeLayer(layer, self.qkv, self.output, self.gate_up, self.down)

    def __call__(
        self, x: Tensor, cos: Tensor, signed_sin: Tensor, attend: StepAttention, adapters: Sequence[AdaptedRows] = ()
    ) -> Tensor:
        """`x` is `[tokens, hidden]`; `cos` and `signed_sin` are `[tokens, 1, head_dim]`."""
        normed = _norm(self.input_norm, x, self.kernels)
        qkv = self.qkv(normed)
        self._adapt(adapters, QKV, qkv, normed)
        heads = qkv.view(len(x), -1, self.head_dim)
        rotated = heads[:, : self.num_rotated]
        if self.qk_norm_weight is not None:
            rotated = _rms_norm(rotated, self.qk_norm_weight, self.qk_norm_eps)
        rotated = torch.addcmul(rotated * cos, rotated.roll(self.head_dim // 2, dims=-1), signed_sin)
        query, key = rotated[:, : -self.num_kv_heads], rotated[:, -self.num_kv_heads :]
        value = heads[:, self.num_rotated :]
        attended = attend.attend_flat(query, key, value, self.index, self.window).reshape(len(x), -1)
        x = self.output.add_to(x, attended)
        self._adapt(adapters, OUTPUT, x, attended)
        normed = _norm(self.mlp_norm, x, self.kernels)
        if not isinstance(self.mlp, GatedMLP):
            return x + self.mlp.forward(normed)
        gate_up = self.gate_up(normed)
        self._adapt(adapters, GATE_UP, gate_up, normed)
        if self.kernels is not None and gate_up.dtype == torch.float32:
            gated = gate(self.kernels, gate_up)
        else:
            gates, ups = gate_up.view(len(x), -1, 2).unbind(2)
            gated = silu(gates) * ups
        x = self.down.add_to(x, gated)
        self._adapt(adapters, DOWN, x, gated)
        return x

    def _adapt(self, adapters: Sequence[AdaptedRows], product: int, y: Tensor, x: Tensor) -> None:
        for rows, adapter in adapters:
            adapter.add_to(y[rows], x[rows], self.index, product)


def _adapted_rows(tokens: Sequence[StepTokens]) -> list[AdaptedRows]:
    """The rows of a step to which adapters add."""
    found: list[AdaptedRows] = []
    end = 0
    for adapter, group in itertools.groupby(tokens, lambda one: one.adapter):
        start = end
        end += sum(len(one.token_ids) for one in group)
        if adapter is not None:
            found.append((slice(start, end), adapter))
    return found


def _native_kernels(model: Decoder, cache: KVCache) -> Context | None:
    """The native kernels, where there are some that can run `model`."""
    if cache.device.type != "cpu" or not instruction_sets():
        return None
    context = Context()
    problem = unsupported(model.config, {cache.dtype, model.model.embed_tokens.weight.dtype}, context)
    if problem:
        logger.info("the native kernels do not run %s; PyTorch does", problem)
    return None if problem else context


def _norm(norm: RMSNorm, x: Tensor, kernels: Context | None) -> Tensor:
    """`norm(x)`, in float32 also with a weight of another dtype."""
    if kernels is not None and x.dtype == torch.float32:
        return native_rms_norm(kernels, x, norm.weight.float(), norm.eps)
    if x.dtype != torch.float32 or norm.weight.dtype == torch.float32:
        return norm.forward(x)
    return rms_norm(x, norm.weight.shape, norm.weight.float(), norm.eps)


def _rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`RMSNorm` with a weight that differs between heads."""
    if x.dtype == torch.float32:
        return rms_norm(x, x.shape[-1:], None, eps) * weight
    return rms_norm(x.float(), x.shape[-1:], None, eps).to(x.dtype) * weight
