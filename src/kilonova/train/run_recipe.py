"""What every run of training is told, whatever it trains."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

from kilonova.core.errors import ConfigError
from kilonova.train.faults.section import FaultsSection
from kilonova.train.faults.stability import StabilitySection
from kilonova.train.parallel.section import ParallelSection
from kilonova.train.trackers import TrackerName


@dataclass(frozen=True, kw_only=True)
class OptimizerSection:
    """`adamw` for every parameter, or `muon` for the layers' matrices with AdamW for the rest.

    `lr` is AdamW's peak learning rate, `muon_lr` Muon's (with its update's root-mean-square matched to AdamW's,
    arXiv 2502.16982, so that both are of the same size).
    """

    name: Literal["adamw", "muon"] = "adamw"
    lr: float
    muon_lr: float | None = None
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.1
    max_grad_norm: float = 1.0


@dataclass(frozen=True, kw_only=True)
class ScheduleSection:
    """Warm-up, stable, decay (arXiv 2404.06395).

    The learning rate rises linearly for `warmup_steps`, holds, and falls by `1 - sqrt` over the last `decay_fraction`
    of the steps to `final_ratio` of its peak.
    """

    warmup_steps: int = 0
    decay_fraction: float = 0.2
    final_ratio: float = 0.0


@dataclass(frozen=True, kw_only=True)
class RunRecipe(ABC):
    """The part of a recipe that all runs share.

    `batch_size` counts rows an optimiser step, taken `micro_batch_size` at a time. Weights are trained in float32 and
    the model is saved in `save_dtype`.
    """

    objective: str
    output: str
    optimizer: OptimizerSection
    schedule: ScheduleSection = field(default_factory=ScheduleSection)
    parallel: ParallelSection = field(default_factory=ParallelSection)
    steps: int
    batch_size: int
    micro_batch_size: int
    seed: int = 0
    device: str = "auto"
    dtype: str = "auto"
    save_dtype: Literal["float32", "bfloat16"] = "float32"
    compile: bool = True
    threads: int | None = None
    log_every: int = 10
    evaluate_every: int = 500
    checkpoint_every: int = 200
    checkpoint_minutes: float = 10.0
    keep_checkpoints: int = 2
    keep_every: int | None = None
    stability: StabilitySection = field(default_factory=StabilitySection)
    faults: FaultsSection = field(default_factory=FaultsSection)
    trackers: tuple[TrackerName, ...] = ()

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "micro_batch_size", "log_every", "evaluate_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: must be at least 1")
        if self.keep_checkpoints < 1:
            raise ConfigError("keep_checkpoints: must be at least 1")
        if self.batch_size % self.micro_batch_size:
            raise ConfigError(
                f"batch_size: {self.batch_size} is not a multiple of micro_batch_size {self.micro_batch_size}"
            )

    @abstractmethod
    def order_of_data(self) -> str:
        """What decides which rows a step reads, as text: a run goes on only where it is the same."""

    def alone(self, **changes: Any) -> Self:
        """The same run in one process on a CPU, not compiled, with a kind's own `changes`."""
        return replace(self, parallel=ParallelSection(), compile=False, device="cpu", **changes)
