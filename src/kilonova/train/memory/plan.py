"""Which policy a run needs: predicted memory and recomputation of each, and the fastest that fits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from kilonova.models.decoder.config import DecoderConfig
from kilonova.models.decoder.model import Decoder, DecoderLayer
from kilonova.nn.moe import SparseMoE
from kilonova.train.memory.layer_cost import LayerCost
from kilonova.train.memory.section import MemoryPolicy

PLANNED: tuple[MemoryPolicy, ...] = ("none", "selective", "ssc", "ssc8", "full")
"""From the fastest to the slowest: nothing is rebuilt, then pointwise arithmetic, int8 codes, the whole layer."""

_CHUNK = 2048
"""Positions whose logits `linear_cross_entropy` holds at a time."""


@dataclass(frozen=True, kw_only=True)
class PolicyPlan:
    """What one policy costs, in bytes of one device.

    `layer_bytes` is the mean of the layers, a token. `activation_bytes` are those of the whole model at the end of its
    forward pass; computing the loss takes `loss_bytes` more, or `plain_loss_bytes` if the logits of all positions
    existed at once. `total_bytes` is the largest sum of a step, and `recomputed` the share of its FLOPs that is
    computed again.
    """

    policy: MemoryPolicy
    exact: bool
    layer_bytes: float
    activation_bytes: int
    loss_bytes: int
    plain_loss_bytes: int
    total_bytes: int
    recomputed: float
    fits: bool | None


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """The policies from the fastest to the slowest, and the first that fits (None: no budget, or none fits)."""

    parameters: int
    tokens: int
    state_bytes: int
    policies: tuple[PolicyPlan, ...]
    chosen: MemoryPolicy | None


def plan_memory(
    config: DecoderConfig,
    *,
    batch_size: int,
    sequence_length: int,
    dtype: torch.dtype = torch.bfloat16,
    compiled: bool = False,
    optimizer: Literal["adamw", "muon"] = "adamw",
    ranks: int = 1,
    budget_bytes: int | None = None,
) -> MemoryPlan:
    """Plan training of all weights on micro-batches of `batch_size` packed rows.

    Weights, gradients and optimiser states are float32, shared by `ranks` under FSDP2. Not counted: gathered weights
    and other buffers of collectives, temporaries of single operations, and what an allocator cannot reuse.
    """
    with torch.device("meta"):
        decoder = Decoder(config)
    residual_dtype = torch.float32 if ranks == 1 else dtype
    layers = [
        LayerCost(config, index, dtype, residual_dtype, sequence_length, compiled)
        for index in range(config.num_hidden_layers)
    ]
    tokens = batch_size * sequence_length
    state_bytes = _state_bytes(decoder, optimizer) // ranks
    loss, plain_loss = _loss_bytes(config, tokens, dtype, residual_dtype)
    head_flops = 6.0 * config.hidden_size * config.vocab_size
    step_flops = sum(layer.step_flops for layer in layers) + head_flops
    shared = _mask_bytes(config, batch_size, sequence_length, dtype)
    # Cosines and sines are those of a row.
    shared += 2 * sequence_length * config.head_dim * residual_dtype.itemsize
    policies = []
    for policy in PLANNED:
        kept = [layer.kept_bytes(policy) for layer in layers]
        a_token = sum(kept) + _outer_bytes(config, policy, residual_dtype, compiled)
        activations = round(tokens * a_token) + shared
        if dtype != residual_dtype:
            activations += _cast_bytes(decoder, policy, layers, dtype, compiled)
        # In the backward pass of `full` one layer at a time is whole again; the loss has then been computed.
        whole = max(layer.kept_bytes("none") for layer in layers) if policy == "full" else 0.0
        total = state_bytes + activations + max(loss, round(tokens * whole))
        policies.append(
            PolicyPlan(
                policy=policy,
                exact=policy != "ssc8",
                layer_bytes=sum(kept) / len(kept),
                activation_bytes=activations,
                loss_bytes=loss,
                plain_loss_bytes=plain_loss,
                total_bytes=total,
                recomputed=sum(layer.recomputed_flops(policy) for layer in layers) / step_flops,
                fits=None if budget_bytes is None else total <= budget_bytes,
            )
        )
    return MemoryPlan(
        parameters=decoder.num_parameters(),
        tokens=tokens,
        state_bytes=state_bytes,
        policies=tuple(policies),
        chosen=next((found.policy for found in policies if found.fits), None),
    )


def recomputes_o_proj(config: DecoderConfig, index: int, sequence_length: int) -> bool:
    """Whether `ssc` and `ssc8` multiply the output projection of layer `index` twice instead of keeping its result.

    They do where that is at most 1.5 % of the step's FLOPs, and so of every layer's: in long rows.
    """
    return LayerCost(config, index, torch.bfloat16, torch.bfloat16, sequence_length).recomputes_o_proj


def _state_bytes(decoder: Decoder, optimizer: str) -> int:
    """Float32 weights and gradients, and AdamW's two moments or, for the matrices of layers, Muon's one."""
    matrices = sum(
        parameter.numel() for parameter in decoder.model.layers.parameters() if parameter.ndim == 2
    )  # Stacked experts have three dimensions and belong to AdamW.
    parameters = decoder.num_parameters()
    return 4 * (4 * parameters - (matrices if optimizer == "muon" else 0))


def _outer_bytes(config: DecoderConfig, policy: MemoryPolicy, residual_dtype: torch.dtype, compiled: bool) -> float:
    """The final norm's input and output, a token."""
    width = residual_dtype.itemsize
    kept = 2.0 * width * config.hidden_size
    if policy in ("none", "full") and not compiled:
        # The norm of plain operations keeps its input in float32, and its normalised input.
        kept += 4 * config.hidden_size + 4
    return kept


def _mask_bytes(config: DecoderConfig, batch_size: int, sequence_length: int, dtype: torch.dtype) -> int:
    """The masks that keep packed documents apart, one for each size of window."""
    windows = {config.window(index) for index in range(config.num_hidden_layers)}
    return len(windows) * batch_size * sequence_length**2 * dtype.itemsize


def _cast_bytes(
    decoder: Decoder, policy: MemoryPolicy, layers: list[LayerCost], dtype: torch.dtype, compiled: bool
) -> int:
    """Weights in the dtype of autocast, which holds them until the loss is there."""
    total = 0
    for cost, layer in zip(layers, decoder.model.layers, strict=True):
        assert isinstance(layer, DecoderLayer)
        if policy in ("ssc", "ssc8"):
            linears = [] if compiled or cost.recomputes_o_proj else [layer.self_attn.o_proj]
        else:
            linears = [module for module in layer.modules() if isinstance(module, nn.Linear)]
        total += sum(parameter.numel() for linear in linears for parameter in linear.parameters())
        if isinstance(layer.mlp, SparseMoE) and policy in ("none", "selective"):
            total += layer.mlp.gate_up_proj.numel() + layer.mlp.down_proj.numel()
    return total * dtype.itemsize


def _loss_bytes(config: DecoderConfig, tokens: int, dtype: torch.dtype, residual_dtype: torch.dtype) -> tuple[int, int]:
    """The largest that cross-entropy takes at once: by chunks, as this package computes it, and plain.

    By chunks it is the gradients of hidden states and output projection, and of a chunk the logits and three float32
    tensors beside the logits' gradient of the chunk before. Plain it is three float32 tensors of all positions: the
    log-probabilities, their gradient and that of the logits.
    """
    wide = 0 if dtype == torch.float32 else 4
    gradients = tokens * config.hidden_size * residual_dtype.itemsize + 4 * config.vocab_size * config.hidden_size
    a_position = dtype.itemsize + wide + 8 + (dtype.itemsize if tokens > _CHUNK else 0)
    chunked = gradients + min(tokens, _CHUNK) * config.vocab_size * a_position
    return chunked, tokens * config.vocab_size * 12
