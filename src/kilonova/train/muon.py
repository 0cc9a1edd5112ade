"""The Muon optimiser: momentum whose update is made orthogonal.

`torch.optim.Muon` always iterates in bfloat16, which a CPU without bfloat16 units emulates at a twentieth of its
float32 speed, and one matrix at a time. This one iterates in the format the device is fast in, over all matrices of
one shape at once, and spreads the matrices over the ranks that share them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Placement, Shard
from torch.distributed.tensor.placement_types import _StridedShard

from kilonova.core.device import has_fast_bfloat16

# Coefficients of the quintic Newton-Schulz iteration (kellerjordan.github.io/posts/muon).
_A, _B, _C = 3.4445, -4.7750, 2.0315


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised, for two-dimensional parameters.

    The update is scaled by `0.2 * sqrt(max(rows, columns))`, which gives it AdamW's root-mean-square size, so that a
    learning rate made for AdamW fits (arXiv 2502.16982, equation 4). Weight decay is decoupled.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        ns_steps: int = 5,
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "ns_steps": ns_steps})
        if any(parameter.ndim != 2 for group in self.param_groups for parameter in group["params"]):
            raise ValueError("Muon takes two-dimensional parameters only")

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            alike: dict[Any, list[nn.Parameter]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike[parameter.shape, _sharding(parameter)].append(parameter)
            for (shape, sharding), parameters in alike.items():
                momentum, steps = group["momentum"], group["ns_steps"]
                updates = torch.stack([_local(self._nesterov(parameter, momentum)) for parameter in parameters])
                if sharding is None:
                    updates = orthogonalize(updates, steps)
                else:
                    mesh, placements = sharding
                    updates = _orthogonalize_sharded(updates, shape, mesh, placements, steps)
                scale = 0.2 * max(shape) ** 0.5
                for parameter, update in zip(map(_local, parameters), updates, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.add_(update, alpha=-group["lr"] * scale)

    def _nesterov(self, parameter: nn.Parameter, momentum: float) -> Tensor:
        gradient = parameter.grad
        assert gradient is not None
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        buffer = state["momentum_buffer"]
        buffer.lerp_(gradient, 1 - momentum)
        return gradient.lerp(buffer, momentum)


def _orthogonalize_sharded(
    shards: Tensor, shape: torch.Size, mesh: DeviceMesh, placements: tuple[Placement, ...], steps: int
) -> Tensor:
    """`orthogonalize` for this rank's shards `[N, ...]` of `N` matrices of `shape`.

    Every rank is sent an equal share of the matrices whole, iterates on those, and sends their shards back: an
    all-to-all each way, where the backend has one.
    """
    size = torch.Size((len(shards), *shape))
    stride = (size[1] * size[2], size[2], 1)
    scattered = tuple(_behind_stack(placement) for placement in placements)
    spread = (Shard(0),) * mesh.ndim
    sharded = DTensor.from_local(shards, mesh, scattered, run_check=False, shape=size, stride=stride)
    whole = orthogonalize(sharded.redistribute(placements=spread).to_local(), steps)
    found = DTensor.from_local(whole, mesh, spread, run_check=False, shape=size, stride=stride)
    return found.redistribute(placements=scattered).to_local()


def _behind_stack(placement: Placement) -> Placement:
    """The placement of a stack of tensors that are each placed so."""
    if isinstance(placement, _StridedShard):
        return _StridedShard(placement.dim + 1, split_factor=placement.split_factor)
    return Shard(placement.dim + 1) if isinstance(placement, Shard) else placement


def _sharding(parameter: Tensor) -> tuple[DeviceMesh, tuple[Placement, ...]] | None:
    return (parameter.device_mesh, parameter.placements) if isinstance(parameter, DTensor) else None


def _local(x: Tensor) -> Tensor:
    return x.to_local() if isinstance(x, DTensor) else x


def orthogonalize(matrices: Tensor, steps: int) -> Tensor:
    """The nearest semi-orthogonal matrices to a stack `[N, rows, columns]`, roughly: singular values in about 0.7-1.2.

    Newton-Schulz iteration in bfloat16 where that is fast, else in float32; returned in the dtype of `matrices`.
    """
    x = matrices.to(torch.bfloat16 if has_fast_bfloat16(matrices.device) else torch.float32)
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.mT
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp_min(1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C)
        x = torch.baddbmm(x, polynomial, x, beta=_A)
    return (x.mT if tall else x).to(matrices.dtype)
