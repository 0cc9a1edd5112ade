"""The typed form of a training recipe."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from kilonova.core.errors import ConfigError
from kilonova.data.sources import Source
from kilonova.models.adapter import AdapterConfig
from kilonova.train.faults.section import FaultsSection
from kilonova.train.faults.stability import StabilitySection
from kilonova.train.memory.section import MemoryPolicy, check_memory_policy
from kilonova.train.objectives.distillation import DistillationSection
from kilonova.train.objectives.dpo import DPOSection
from kilonova.train.objectives.grpo import GRPOSection
from kilonova.train.objectives.ppo import PPOSection
from kilonova.train.objectives.reward import RewardSection
from kilonova.train.parallel.section import ParallelSection
from kilonova.train.trackers import TrackerName

# Sections of `TrainRecipe` that are read by the objective of the same name only.
_OBJECTIVE_SECTIONS = ("distill", "reward", "dpo", "ppo", "grpo")


@dataclass(frozen=True, kw_only=True)
class ModelSection:
    """Where the weights begin: a checkpoint directory, or fresh ones of a shape given as in `config.json`."""

    init_from: str | None = None
    tokenizer: str | None = None
    config: dict | None = None

    def __post_init__(self) -> None:
        if (self.init_from is None) == (self.config is None):
            raise ConfigError("model: give exactly one of init_from (a checkpoint) and config (a fresh model's shape)")
        if self.config is not None and self.tokenizer is None:
            raise ConfigError("model.tokenizer: a fresh model needs the directory of its tokenizer")


@dataclass(frozen=True, kw_only=True)
class AdapterSection(AdapterConfig):
    """Train an adapter of the model and nothing else of it; `merge` writes the whole model at the end."""

    merge: bool = False


@dataclass(frozen=True, kw_only=True)
class DataSection:
    """What is read; `root` is the folder the sources' paths start from, `cache` where token ids are kept.

    With `temperature` rows are drawn from source i with probability proportional to (weight_i * tokens_i) ** (1 /
    temperature); without it a source is seen `weight` times in each pass over the mixture.
    """

    root: str = "."
    cache: str = "runs/tokens"
    sequence_length: int
    sources: tuple[Source, ...]
    validation: tuple[Source, ...] = ()
    temperature: float | None = None

    def __post_init__(self) -> None:
        if not self.sources:
            raise ConfigError("data.sources: at least one is needed")
        if self.sequence_length < 2:
            raise ConfigError("data.sequence_length: must be at least 2")
        if self.temperature is not None and not self.temperature > 0:
            raise ConfigError("data.temperature: must be above 0")


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
class TrainRecipe:
    """One run of training.

    `batch_size` counts rows an optimiser step, taken `micro_batch_size` at a time. Weights are trained in float32 and
    the model is saved in `save_dtype`. `memory` says what is kept of a layer for its backward pass, `memory_budget`
    which share of it where the compiler chooses (`memory: budget`).
    """

    objective: Literal["pretrain", "sft", "distill", "reward", "dpo", "ppo", "grpo"]
    output: str
    model: ModelSection
    adapter: AdapterSection | None = None
    data: DataSection
    optimizer: OptimizerSection
    schedule: ScheduleSection = field(default_factory=ScheduleSection)
    parallel: ParallelSection = field(default_factory=ParallelSection)
    distill: DistillationSection | None = None
    reward: RewardSection | None = None
    dpo: DPOSection | None = None
    ppo: PPOSection | None = None
    grpo: GRPOSection | None = None
    steps: int
    batch_size: int
    micro_batch_size: int
    seed: int = 0
    device: str = "auto"
    dtype: str = "auto"
    save_dtype: Literal["float32", "bfloat16"] = "float32"
    compile: bool = True
    memory: MemoryPolicy = "none"
    memory_budget: float | None = None
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
        check_memory_policy(self.memory, self.memory_budget, compile=self.compile)
        if self.parallel.tensor > 1 and self.memory in ("selective", "ssc", "ssc8"):
            raise ConfigError(
                f"memory: {self.memory} computes whole layers, which parallel.tensor {self.parallel.tensor} spreads "
                "over ranks; use none, full or budget"
            )
        for name in _OBJECTIVE_SECTIONS:
            if getattr(self, name) is not None and self.objective != name:
                raise ConfigError(f"{name}: belongs to objective {name}, not to {self.objective}")
        if self.objective == "distill" and self.distill is None:
            raise ConfigError("distill: name the teacher, the directory of a checkpoint, as distill.teacher")
        if self.data.temperature is not None and self.objective not in ("pretrain", "sft", "distill"):
            raise ConfigError(f"data.temperature: rows of objective {self.objective} are seen pass by pass")
        if self.adapter is not None and self.model.init_from is None:
            raise ConfigError("adapter: needs model.init_from, the checkpoint that it adapts")
