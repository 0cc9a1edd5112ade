"""The recipe's `parallel` section: how many ranks share what."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from kilonova.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ReductionSection:
    """How gradients are summed over data-parallel ranks.

    `dtype` is the format they travel in. Consecutive layers are grouped until a group holds `bucket_megabytes` (of
    2**20 bytes) of parameters as they travel; a group is gathered, and its gradients reduced, in one collective.
    `frequency` reduces after every micro-batch, which keeps gradients sharded, or once an optimiser step, which keeps
    whole ones until then. `separate_group` gives reductions a communicator of their own, so that they do not queue
    behind gathers.
    """

    dtype: Literal["float32", "bfloat16"] = "float32"
    bucket_megabytes: float = 25.0
    frequency: Literal["micro_batch", "step"] = "step"
    separate_group: bool = False

    def __post_init__(self) -> None:
        if self.bucket_megabytes < 0:
            raise ConfigError("parallel.reduction.bucket_megabytes: must not be negative (0 makes each layer a group)")


@dataclass(frozen=True, kw_only=True)
class ParallelSection:
    """Sizes of the mesh of ranks, whose product is the number of ranks (torchrun's WORLD_SIZE).

    Rows are spread over `data_parallel_replicate`, `data_parallel_shard` and `expert` together, the positions of a row
    over `context`, heads and feed-forward columns over `tensor`, experts over `expert`. Parameters are sharded (FSDP2)
    over `data_parallel_shard`, `expert` and `context`, and copied over `data_parallel_replicate` (HSDP).
    `data_parallel_shard` -1 takes the ranks that are left.

    `reshard_after_forward` frees gathered parameters between forward and backward pass; False gathers them once an
    optimiser step. The prefetch depths say how many groups are gathered ahead of the one that computes; 0 leaves it to
    FSDP2, which overlaps one.
    """

    data_parallel_replicate: int = 1
    data_parallel_shard: int = -1
    tensor: int = 1
    context: int = 1
    expert: int = 1
    reshard_after_forward: bool = True
    forward_prefetch: int = 0
    backward_prefetch: int = 0
    reduction: ReductionSection = field(default_factory=ReductionSection)

    def __post_init__(self) -> None:
        for name in ("data_parallel_replicate", "tensor", "context", "expert"):
            if getattr(self, name) < 1:
                raise ConfigError(f"parallel.{name}: must be at least 1")
        if self.data_parallel_shard != -1 and self.data_parallel_shard < 1:
            raise ConfigError("parallel.data_parallel_shard: must be at least 1, or -1 for the ranks that are left")
        for name in ("forward_prefetch", "backward_prefetch"):
            if getattr(self, name) < 0:
                raise ConfigError(f"parallel.{name}: must not be negative")

    def shape(self, world_size: int) -> dict[str, int]:
        """Sizes of the mesh's dimensions, outermost first; ConfigError unless they multiply to `world_size`."""
        given = self.data_parallel_replicate * self.expert * self.context * self.tensor
        shard = self.data_parallel_shard if self.data_parallel_shard != -1 else world_size // given
        if given * shard != world_size:
            raise ConfigError(
                f"parallel: data_parallel_replicate {self.data_parallel_replicate} x data_parallel_shard "
                f"{self.data_parallel_shard} x expert {self.expert} x context {self.context} x tensor {self.tensor} "
                f"does not make {world_size}, the number of ranks; launch with torchrun --nproc-per-node, or change "
                "the sizes"
            )
        return {
            "replicate": self.data_parallel_replicate,
            "shard": shard,
            "expert": self.expert,
            "context": self.context,
            "tensor": self.tensor,
        }
