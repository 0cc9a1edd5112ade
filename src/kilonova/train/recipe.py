"""The typed form of a training recipe."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from kilonova.core.errors import ConfigError
from kilonova.data.sources import Source


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
class DataSection:
    """What is read; `root` is the folder the sources' paths start from, `cache` where token ids are kept."""

    root: str = "."
    cache: str = "runs/tokens"
    sequence_length: int
    sources: tuple[Source, ...]
    validation: tuple[Source, ...] = ()

    def __post_init__(self) -> None:
        if not self.sources:
            raise ConfigError("data.sources: at least one is needed")
        if self.sequence_length < 2:
            raise ConfigError("data.sequence_length: must be at least 2")


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
    the model is saved in `save_dtype`.
    """

    objective: Literal["pretrain", "sft"]
    output: str
    model: ModelSection
    data: DataSection
    optimizer: OptimizerSection
    schedule: ScheduleSection = field(default_factory=ScheduleSection)
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

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "micro_batch_size", "log_every", "evaluate_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: must be at least 1")
        if self.batch_size % self.micro_batch_size:
            raise ConfigError(
                f"batch_size: {self.batch_size} is not a multiple of micro_batch_size {self.micro_batch_size}"
            )
