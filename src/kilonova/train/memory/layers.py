"""A decoder layer computed so that it keeps less for the backward pass."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import checkpoint

from kilonova.models.decoder.model import DecoderLayer
from kilonova.nn.attention import Attend, Attention, PackedCausalAttention
from kilonova.nn.mlp import GatedMLP
from kilonova.nn.moe import SparseMoE
from kilonova.nn.norm import RMSNorm
from kilonova.train.memory import pointwise
from kilonova.train.memory.compiled import keep_gemms
from kilonova.train.memory.experts import norm_experts
from kilonova.train.memory.functions import (
    compute_dtype,
    norm_linears,
    output_norm_linears,
    rms_norm,
    rotate_heads,
    swiglu,
    swiglu_linear,
)


def full(
    layer: DecoderLayer,
    forward: Callable[..., Tensor],
    x: Tensor,
    rotary: tuple[Tensor, Tensor],
    attend: Attend,
) -> Tensor:
    """`forward`, the layer's own, keeping its input only and computing all of it again (arXiv 1604.06174)."""
    make_mask(layer, x, attend)
    # Nothing in a layer draws random numbers.
    return checkpoint(forward, x, rotary, attend, use_reentrant=False, preserve_rng_state=False)


def selective(layer: DecoderLayer, x: Tensor, rotary: tuple[Tensor, Tensor], attend: Attend) -> Tensor:
    """`layer(x, rotary, attend)` with fused norms and a fused SwiGLU, keeping the input of every GEMM.

    With flash attention, whose score matrix never exists, this is the selective recomputation of arXiv 2205.05198.
    """
    attention = layer.self_attn
    normed = rms_norm(x, layer.input_layernorm)
    query, key, value = attention.q_proj(normed), attention.k_proj(normed), attention.v_proj(normed)
    x = x + attention.o_proj(_attended(attention, query, key, value, rotary, attend, rebuild=False))
    if isinstance(layer.mlp, SparseMoE):
        # The router must see the very same numbers: a close choice of experts would turn over.
        return x + layer.mlp(rms_norm(x, layer.post_attention_layernorm, keep_dtype=True))
    normed = rms_norm(x, layer.post_attention_layernorm)
    return x + layer.mlp.down_proj(swiglu(layer.mlp.gate_proj(normed), layer.mlp.up_proj(normed)))


def super_selective(
    layer: DecoderLayer,
    x: Tensor,
    rotary: tuple[Tensor, Tensor],
    attend: Attend,
    *,
    compressed: bool,
    recompute_o_proj: bool,
) -> Tensor:
    """`layer(x, rotary, attend)`, keeping GEMM outputs and rebuilding norms, rotations and SwiGLU products.

    `compressed` keeps gate and up as int8, and residuals in the dtype of the GEMMs. `recompute_o_proj` multiplies the
    output projection of a dense layer twice instead of keeping the residual behind it.
    """
    make_mask(layer, x, attend)
    if isinstance(layer.mlp, SparseMoE):
        x = keep_gemms(functools.partial(_attention_block, layer, compressed=compressed), x, rotary, attend)
        norm = layer.post_attention_layernorm
        if isinstance(layer.mlp.gate_up_proj, DTensor):
            # Spread over ranks, experts are computed elsewhere.
            return x + layer.mlp(rms_norm(x, norm, keep_dtype=True))
        return x + norm_experts(x, _kept(x, compressed), norm, layer.mlp, compressed=compressed)
    dense = functools.partial(_dense, layer, compressed=compressed, recompute_o_proj=recompute_o_proj)
    # Of gate and up a compiler finds by itself that int8 is the smallest form.
    recomputed, free_from = _O_PROJ if recompute_o_proj else None, _DOWN_PROJ if compressed else None
    return keep_gemms(dense, x, rotary, attend, recomputed=recomputed, free_from=free_from)


def make_mask(layer: DecoderLayer, x: Tensor, attend: Attend) -> None:
    """Have `attend` make the mask it shares between layers here: a checkpointed region must not change it."""
    if isinstance(attend, PackedCausalAttention):
        attend.mask(x.shape[1], layer.self_attn.sliding_window, x)


_O_PROJ, _DOWN_PROJ = 3, 6
"""Their places among the GEMMs of a dense layer."""


def _attention_block(
    layer: DecoderLayer, x: Tensor, rotary: tuple[Tensor, Tensor], attend: Attend, *, compressed: bool
) -> Tensor:
    attended = _attended_projections(layer, x, _kept(x, compressed), rotary, attend)
    return x + layer.self_attn.o_proj(attended)


def _dense(
    layer: DecoderLayer,
    x: Tensor,
    rotary: tuple[Tensor, Tensor],
    attend: Attend,
    *,
    compressed: bool,
    recompute_o_proj: bool,
) -> Tensor:
    kept_x = _kept(x, compressed)
    attended = _attended_projections(layer, x, kept_x, rotary, attend)
    o_proj, norm, mlp = layer.self_attn.o_proj, layer.post_attention_layernorm, layer.mlp
    assert isinstance(mlp, GatedMLP)
    linears = [mlp.gate_proj, mlp.up_proj]
    if recompute_o_proj:
        x, gate, up = output_norm_linears(x, kept_x, attended, o_proj, norm, linears)
    else:
        x = x + o_proj(attended)
        gate, up = norm_linears(x, _kept(x, compressed), norm, linears)
    return x + swiglu_linear(gate, up, mlp.down_proj, compressed=compressed)


def _attended_projections(
    layer: DecoderLayer, x: Tensor, kept_x: Tensor | None, rotary: tuple[Tensor, Tensor], attend: Attend
) -> Tensor:
    attention = layer.self_attn
    linears = [attention.q_proj, attention.k_proj, attention.v_proj]
    query, key, value = norm_linears(x, kept_x, layer.input_layernorm, linears)
    return _attended(attention, query, key, value, rotary, attend, rebuild=True)


def _kept(x: Tensor, compressed: bool) -> Tensor | None:
    """What to keep in place of `x`: under autocast the residual stream is wider than what is computed with."""
    dtype = compute_dtype(x)
    return x.detach().to(dtype) if compressed and x.dtype != dtype else None


def _attended(
    attention: Attention,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rotary: tuple[Tensor, Tensor],
    attend: Attend,
    *,
    rebuild: bool,
) -> Tensor:
    """What the output projection multiplies, `[B, T, heads * head_dim]`."""
    batch, length, _ = query.shape
    query, key, value = (heads.view(batch, length, -1, attention.head_dim) for heads in (query, key, value))
    rotated_query = rotate_heads(query, attention.q_norm, rotary, value.dtype)
    rotated_key = rotate_heads(key, attention.k_norm, rotary, value.dtype)
    hooks: AbstractContextManager[Any] = nullcontext()
    # A compiled graph chooses by itself which of the two forms it keeps.
    if rebuild and attention.q_norm is not None and attention.k_norm is not None and not torch.compiler.is_compiling():
        hooks = _rebuilt(
            (rotated_query, functools.partial(_rotate, query.detach(), attention.q_norm, rotary, value.dtype)),
            (rotated_key, functools.partial(_rotate, key.detach(), attention.k_norm, rotary, value.dtype)),
        )
    with hooks:
        attended = attend(
            rotated_query, rotated_key, value.transpose(1, 2), attention.layer_index, attention.sliding_window
        )
    return attended.transpose(1, 2).reshape(batch, length, -1)


@torch.no_grad()
def _rotate(x: Tensor, norm: RMSNorm, rotary: tuple[Tensor, Tensor], dtype: torch.dtype) -> Tensor:
    return pointwise.rotated_heads(x, norm.weight, norm.eps, *rotary, dtype)


def _rebuilt(*tensors: tuple[Tensor, Callable[[], Tensor]]) -> AbstractContextManager[Any]:
    """Inside, autograd keeps the recipe of each given tensor in place of the tensor.

    The query-key norm needs its inputs in the backward pass; with them its outputs need not be kept.
    """
    recipes = {_identity(tensor): recipe for tensor, recipe in tensors}
    return torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: recipes.get(_identity(tensor), tensor),
        lambda kept: kept if isinstance(kept, Tensor) else kept(),
    )


def _identity(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype
