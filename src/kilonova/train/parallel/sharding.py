"""Fully sharded data parallelism (FSDP2) of a decoder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

from kilonova.models.decoder.model import Decoder
from kilonova.train.parallel.expert import expert_placement
from kilonova.train.parallel.mesh import ParallelMesh


def shard_decoder(decoder: Decoder, mesh: ParallelMesh, dtype: torch.dtype) -> None:
    """Shard the parameters of `decoder` in place, group by group of its layers, and move them to the mesh's device.

    Parameters stay float32 at rest and are gathered in `dtype`. Embedding, final norm and output projection make the
    root group, which stays gathered from the forward pass to the end of the backward pass, as the loss multiplies by
    the output projection between the two. Gradients are summed over ranks, not averaged: the trainer divides the loss
    by the items of all.
    """
    section = mesh.section
    policy = MixedPrecisionPolicy(
        param_dtype=None if dtype == torch.float32 else dtype,
        reduce_dtype=getattr(torch, section.reduction.dtype),
        cast_forward_inputs=False,
    )
    placement = expert_placement(decoder, mesh)

    def shard(group: list[nn.Module], reshard_after_forward: bool) -> FSDPModule:
        return fully_shard(
            group,
            mesh=mesh.fully_sharded,
            mp_policy=policy,
            reshard_after_forward=reshard_after_forward,
            shard_placement_fn=placement,
        )[0]

    layers = layer_groups(decoder.model.layers, section.reduction.bucket_megabytes, dtype)
    groups = [shard(group, section.reshard_after_forward) for group in layers]
    root = shard([decoder], reshard_after_forward=False)
    register_fsdp_forward_method(decoder, "hidden_states")
    for module in fully_sharded_modules(decoder):
        module.set_gradient_divide_factor(1.0)
        # Without it FSDP2 asks for a scaled sum, which gloo does not have.
        module.set_force_sum_reduction_for_comms(True)
    if section.reduction.separate_group:
        root.set_separate_reduce_scatter_group()
    _set_prefetch(groups, section.forward_prefetch, section.backward_prefetch)


def layer_groups(layers: Iterable[nn.Module], megabytes: float, dtype: torch.dtype) -> list[list[nn.Module]]:
    """Consecutive layers, as many together as it takes to reach `megabytes` of parameters in `dtype`."""
    limit = megabytes * 2**20
    groups: list[list[nn.Module]] = []
    size = limit
    for layer in layers:
        if size >= limit:
            groups.append([])
            size = 0.0
        groups[-1].append(layer)
        size += sum(parameter.numel() for parameter in layer.parameters()) * dtype.itemsize
    return groups


def fully_sharded_modules(module: nn.Module) -> list[FSDPModule]:
    """The modules below `module`, itself included, that are groups of FSDP2."""
    return [found for found in module.modules() if isinstance(found, FSDPModule)]


def _set_prefetch(groups: Sequence[FSDPModule], forward: int, backward: int) -> None:
    for index, group in enumerate(groups):
        if forward:
            group.set_modules_to_forward_prefetch(list(groups[index + 1 : index + 1 + forward]))
        if backward:
            group.set_modules_to_backward_prefetch(list(groups[max(0, index - backward) : index][::-1]))
