"""Whole parameters of a sharded module, for what reads them by name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.distributed.tensor import DTensor

from kilonova.train.parallel.mesh import ParallelMesh
from kilonova.train.parallel.sharding import fully_sharded_modules


@contextmanager
def whole_parameters(module: nn.Module, mesh: ParallelMesh | None) -> Iterator[bool]:
    """Within the block, the main rank's `module` holds whole parameters on the CPU instead of shards.

    Yields whether this is the main rank (always, without a mesh). Every rank must enter; none may compute with the
    module inside.
    """
    if mesh is None:
        yield True
        return
    for group in fully_sharded_modules(module):
        group.reshard()
    sharded: list[tuple[nn.Module, str, nn.Parameter]] = []
    whole: dict[int, nn.Parameter] = {}
    for owner in module.modules():
        for name, parameter in owner.named_parameters(recurse=False):
            if not isinstance(parameter, DTensor):
                continue
            sharded.append((owner, name, parameter))
            if id(parameter) not in whole:
                gathered = parameter.full_tensor().detach()
                # The others take part in the gathering, but keep nothing.
                if mesh.is_main:
                    whole[id(parameter)] = nn.Parameter(gathered.cpu(), parameter.requires_grad)
                else:
                    whole[id(parameter)] = parameter
    for owner, name, parameter in sharded:
        owner.register_parameter(name, whole[id(parameter)])
    try:
        yield mesh.is_main
    finally:
        for owner, name, parameter in sharded:
            owner.register_parameter(name, parameter)
