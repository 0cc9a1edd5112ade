"""The ranks of a run and what each shares with which others."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from kilonova.core.errors import ConfigError
from kilonova.train.parallel.section import ParallelSection

# torch waits ten minutes (nccl) or thirty (gloo) for a rank that does not come; a run that hangs is found sooner.
_TIMEOUT = timedelta(minutes=10)


@dataclass(frozen=True)
class ParallelMesh:
    """The mesh of ranks `(replicate, shard, expert, context, tensor)` with this process's place in it."""

    section: ParallelSection
    root: DeviceMesh
    fully_sharded: DeviceMesh
    """Over which most parameters are sharded: `(replicate, shard * expert * context)`, or without the first."""
    expert_sharded: DeviceMesh
    """The same for the experts a rank holds: `(replicate, shard * context)`, or without the first."""
    patient: dist.ProcessGroup
    """All ranks, on the CPU, with time for long preparations."""

    @classmethod
    def create(cls, section: ParallelSection, device_type: str) -> ParallelMesh:
        """The mesh that `section` describes over all ranks of the default process group."""
        shape = section.shape(dist.get_world_size())
        root = init_device_mesh(device_type, tuple(shape.values()), mesh_dim_names=tuple(shape))
        fully_sharded = root["shard", "expert", "context"]._flatten("fully_sharded")
        expert_sharded = root["shard", "context"]._flatten("expert_sharded")
        if section.data_parallel_replicate > 1:
            fully_sharded = DeviceMesh._concatenate([root["replicate"], fully_sharded])
            expert_sharded = DeviceMesh._concatenate([root["replicate"], expert_sharded])
        patient = dist.new_group(backend="gloo", timeout=timedelta(days=1))
        return cls(section, root, fully_sharded, expert_sharded, patient)

    def __getitem__(self, name: str) -> DeviceMesh:
        """The one-dimensional mesh of the ranks that differ from this one along `name` alone."""
        return self.root[name]

    @property
    def data_rank(self) -> int:
        """This rank's number among those that read different rows."""
        replicate, shard, expert = (self.root.get_local_rank(name) for name in ("replicate", "shard", "expert"))
        return (replicate * self.root["shard"].size() + shard) * self.section.expert + expert

    @property
    def num_data_ranks(self) -> int:
        """How many ranks read different rows."""
        return self.root.size() // (self.section.context * self.section.tensor)

    @property
    def is_main(self) -> bool:
        """Whether this rank prints, logs and writes for all."""
        return dist.get_rank() == 0

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """Run a block on the main rank before the others, which find what it left in a cache."""
        if not self.is_main:
            dist.barrier(self.patient)
        yield
        if self.is_main:
            dist.barrier(self.patient)

    def sum_over_ranks(self, values: Tensor) -> Tensor:
        """The sum over all ranks of a tensor that each holds."""
        total = values.clone()
        dist.all_reduce(total)
        return total

    def any_rank(self, *flags: bool) -> tuple[bool, ...]:
        """For each flag whether it is set on any rank; the same answer everywhere, without waiting for the device."""
        values = torch.tensor(flags, dtype=torch.int32)
        dist.all_reduce(values, op=dist.ReduceOp.MAX)
        return tuple(bool(value) for value in values)


def launched_by_torchrun() -> bool:
    """Whether this process is one of several that torchrun (or a launcher like it) started."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


@contextmanager
def parallel_mesh(section: ParallelSection, device: torch.device) -> Iterator[ParallelMesh | None]:
    """Join the process group that torchrun's environment describes, and leave it at the end.

    Yields None in a process that was not launched so, where every size must be 1. Collectives on CPU tensors use gloo,
    those on CUDA tensors nccl.
    """
    if not launched_by_torchrun():
        section.shape(1)
        yield None
        return
    section.shape(int(os.environ["WORLD_SIZE"]))
    if device.type == "cuda":
        torch.cuda.set_device(device)
    elif device.type != "cpu":
        raise ConfigError(f"device: ranks of a parallel run compute on cpu or cuda, not {device.type}")
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=_TIMEOUT)
    try:
        yield ParallelMesh.create(section, device.type)
        dist.barrier()
    finally:
        dist.destroy_process_group()


def local_device(device: torch.device) -> torch.device:
    """The device of this rank: torchrun's LOCAL_RANK numbers the GPUs of a machine."""
    if device.type == "cuda" and launched_by_torchrun():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return device
