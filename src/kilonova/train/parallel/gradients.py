"""Gradients of a step: when they are reduced, and their norm."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from kilonova.train.parallel.mesh import ParallelMesh
from kilonova.train.parallel.sharding import fully_sharded_modules


def begin_micro_batch(module: nn.Module, mesh: ParallelMesh, *, last: bool) -> None:
    """Say whether a micro-batch is the last of its step, so that reductions happen when the recipe wants them."""
    every = mesh.section.reduction.frequency == "micro_batch"
    for group in fully_sharded_modules(module):
        group.set_requires_gradient_sync(every or last, recurse=False)
        group.set_requires_all_reduce(last, recurse=False)
        group.set_is_last_backward(last)
        if not mesh.section.reshard_after_forward:
            group.set_reshard_after_backward(last, recurse=False)


def reduce_unsharded(module: nn.Module, mesh: ParallelMesh) -> None:
    """Sum over ranks the gradients of parameters that FSDP2 does not hold, such as those of a head beside a decoder.

    Ranks of the `tensor` dimension compute the same gradient.
    """
    gradients = [p.grad for p in module.parameters() if p.grad is not None and not isinstance(p, DTensor)]
    if not gradients:
        return
    flat = torch.cat([gradient.flatten() for gradient in gradients]) / mesh.section.tensor
    dist.all_reduce(flat)
    for gradient, reduced in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(reduced.view_as(gradient))


def clip_grad_norm(parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
    """Scale gradients in place so that their joint 2-norm is at most `max_norm`; returns the norm before.

    `torch.nn.utils.clip_grad_norm_` for parameters of which some may be sharded, over different meshes.
    """
    by_mesh: dict[object, list[Tensor]] = defaultdict(list)
    for parameter in parameters:
        if (gradient := parameter.grad) is not None:
            by_mesh[gradient.device_mesh if isinstance(gradient, DTensor) else None].append(gradient)
    norms = [_full(torch.nn.utils.get_total_norm(gradients)) for gradients in by_mesh.values()]
    total = norms[0] if len(norms) == 1 else torch.stack(norms).norm()
    scale = (max_norm / (total + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_([_local(gradient) for gradients in by_mesh.values() for gradient in gradients], scale)
    return total


def _full(x: Tensor) -> Tensor:
    return x.full_tensor() if isinstance(x, DTensor) else x


def _local(x: Tensor) -> Tensor:
    return x.to_local() if isinstance(x, DTensor) else x
