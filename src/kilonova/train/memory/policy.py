"""What a decoder keeps between its forward and its backward pass."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import nn

from kilonova.core.errors import ConfigError
from kilonova.models.decoder.model import Decoder, DecoderLayer
from kilonova.nn.mlp import GatedMLP
from kilonova.train.memory import layers
from kilonova.train.memory.functions import rms_norm
from kilonova.train.memory.plan import recomputes_o_proj
from kilonova.train.memory.section import MemoryPolicy, check_memory_policy


def apply_memory_policy(
    model: Decoder, policy: MemoryPolicy, *, budget: float | None = None, sequence_length: int | None = None
) -> None:
    """Make `model` keep for its backward pass what `policy` says; parameters, their names and results stay as they are.

    To be called once, before `torch.compile` and `fully_shard`. `none`, `selective`, `full` and `ssc` are exact; `ssc8`
    keeps the inputs of SwiGLU as int8. `budget` sets the share of activations that compiled graphs of this process keep
    (0 to 1, torch's `activation_memory_budget`). With the `sequence_length` of training, `ssc` and `ssc8` also drop
    what the output projection rebuilds where that is nearly free. Raises `ConfigError`, for adapters among others.
    """
    check_memory_policy(policy, budget, compile=True)
    if policy == "none":
        return
    if policy == "budget":
        assert budget is not None
        torch._functorch.config.activation_memory_budget = budget
        return
    for index, layer in enumerate(model.model.layers):
        assert isinstance(layer, DecoderLayer)
        forward: Callable[..., torch.Tensor]
        if policy == "full":
            forward = functools.partial(layers.full, layer, layer.forward)
        elif policy == "selective":
            forward = functools.partial(layers.selective, layer)
        else:
            _check_linears(layer, policy)
            again = sequence_length is not None and recomputes_o_proj(model.config, index, sequence_length)
            forward = functools.partial(
                layers.super_selective, layer, compressed=policy == "ssc8", recompute_o_proj=again
            )
        layer.forward = forward  # type: ignore[method-assign]
    if policy != "full":
        norm = model.model.norm
        norm.forward = functools.partial(rms_norm, norm=norm, keep_dtype=True)  # type: ignore[method-assign]


def _check_linears(layer: DecoderLayer, policy: MemoryPolicy) -> None:
    """The functions multiply weights themselves, so a module that wraps a linear layer would be passed over."""
    attention, mlp = layer.self_attn, layer.mlp
    linears = {"q_proj": attention.q_proj, "k_proj": attention.k_proj, "v_proj": attention.v_proj}
    linears["o_proj"] = attention.o_proj
    if isinstance(mlp, GatedMLP):
        linears |= {"gate_proj": mlp.gate_proj, "up_proj": mlp.up_proj, "down_proj": mlp.down_proj}
    for name, linear in linears.items():
        if type(linear) is not nn.Linear:
            raise ConfigError(
                f"memory: {policy} needs plain linear layers, but {name} is a {type(linear).__name__}; "
                "use none, selective or full"
            )
