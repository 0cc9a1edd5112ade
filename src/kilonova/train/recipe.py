"""The typed form of a recipe that trains a language model."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal, Self

from kilonova.core.errors import ConfigError
from kilonova.data.sources import Source
from kilonova.models.adapter import AdapterConfig
from kilonova.train.memory.section import MemoryPolicy, check_memory_policy
from kilonova.train.objectives.distillation import DistillationSection
from kilonova.train.objectives.dpo import DPOSection
from kilonova.train.objectives.grpo import GRPOSection
from kilonova.train.objectives.ppo import PPOSection
from kilonova.train.objectives.reward import RewardSection
from kilonova.train.run_recipe import RunRecipe

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
class TrainRecipe(RunRecipe):
    """One run of training a language model.

    `memory` says what is kept of a layer for its backward pass, `memory_budget` which share of it where the compiler
    chooses (`memory: budget`).
    """

    objective: Literal["pretrain", "sft", "distill", "reward", "dpo", "ppo", "grpo"]
    model: ModelSection
    adapter: AdapterSection | None = None
    data: DataSection
    distill: DistillationSection | None = None
    reward: RewardSection | None = None
    dpo: DPOSection | None = None
    ppo: PPOSection | None = None
    grpo: GRPOSection | None = None
    memory: MemoryPolicy = "none"
    memory_budget: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
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

    def order_of_data(self) -> str:
        data = self.data
        sources = [(source.path, source.template, source.format, source.weight) for source in data.sources]
        return json.dumps([self.objective, sources, data.temperature, data.sequence_length, self.batch_size, self.seed])

    def alone(self, **changes: Any) -> Self:
        return super().alone(memory="none", memory_budget=None, **changes)
