"""Expert parallelism: each rank holds some of the experts, and tokens travel to theirs and back."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed._functional_collectives import all_to_all_single_autograd
from torch.distributed.fsdp._fully_shard._fsdp_common import FSDPMeshInfo, HSDPMeshInfo, ShardPlacementResult
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from kilonova.core.errors import ConfigError
from kilonova.models.decoder.model import Decoder
from kilonova.nn.moe import SparseMoE, grouped_experts
from kilonova.train.parallel.mesh import ParallelMesh


def apply_expert_parallel(decoder: Decoder, mesh: ParallelMesh) -> None:
    """Spread the experts of every mixture-of-experts layer over the ranks of the `expert` dimension, in place.

    ConfigError for a decoder without experts, and for a number of experts that the dimension does not divide.
    """
    experts = mesh["expert"]
    layers = _mixtures(decoder)
    if not layers or decoder.config.num_experts % experts.size():
        raise ConfigError(
            f"parallel.expert: {experts.size()} does not divide the model's {decoder.config.num_experts} experts"
        )
    for moe in layers:
        for name in ("gate_up_proj", "down_proj"):
            whole = getattr(moe, name)
            share = distribute_tensor(whole.detach(), experts, [Shard(0)], src_data_rank=None)
            setattr(moe, name, nn.Parameter(share, requires_grad=whole.requires_grad))
        moe.experts = partial(_dispatched_experts, moe, experts.get_group())  # type: ignore[method-assign]


def expert_placement(
    decoder: Decoder, mesh: ParallelMesh
) -> Callable[[nn.Parameter], ShardPlacementResult | None] | None:
    """How FSDP2 shards the experts a rank holds: over those ranks only that hold the same ones."""
    if mesh.section.expert == 1:
        return None
    stacked = {id(parameter) for moe in _mixtures(decoder) for parameter in (moe.gate_up_proj, moe.down_proj)}
    replicated = mesh.expert_sharded.ndim == 2
    info = HSDPMeshInfo(mesh.expert_sharded, 1, 0) if replicated else FSDPMeshInfo(mesh.expert_sharded, 0)

    def placement(parameter: nn.Parameter) -> ShardPlacementResult | None:
        if id(parameter) not in stacked:
            return None
        # Rows of a matrix, rather than experts again: there may be fewer of those than ranks.
        rows = Shard(1) if parameter.shape[1] % info.shard_mesh_size == 0 else Shard(0)
        return ShardPlacementResult(rows, info)

    return placement


def _mixtures(decoder: Decoder) -> list[SparseMoE]:
    return [layer.mlp for layer in decoder.model.layers if isinstance(layer.mlp, SparseMoE)]


def _dispatched_experts(moe: SparseMoE, group: dist.ProcessGroup, rows: Tensor, counts: Tensor) -> Tensor:
    """`moe.experts` with the experts of this rank's group: `rows` sorted by expert, `counts` of them for each."""
    gate_up, down = _local(moe.gate_up_proj), _local(moe.down_proj)
    held, ranks = gate_up.shape[0], group.size()
    arriving = torch.empty_like(counts)
    dist.all_to_all_single(arriving, counts, group=group)
    sent = counts.view(ranks, held).sum(dim=1).tolist()
    received = arriving.view(ranks, held).sum(dim=1).tolist()

    arrived = all_to_all_single_autograd(rows, received, sent, group)
    # They come ordered by sender, then expert.
    expert_of_row = torch.arange(held, device=rows.device).repeat(ranks).repeat_interleave(arriving)
    order = expert_of_row.argsort(stable=True)
    outputs = grouped_experts(arrived[order], arriving.view(ranks, held).sum(dim=0).tolist(), gate_up, down)
    return all_to_all_single_autograd(outputs[order.argsort()], sent, received, group)


def _local(parameter: Tensor) -> Tensor:
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter
