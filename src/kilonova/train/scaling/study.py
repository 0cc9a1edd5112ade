"""A ladder of training runs, the law fitted to it, and what the law says of a run it has not seen."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kilonova.core.config import load_config
from kilonova.core.errors import ConfigError
from kilonova.core.files import write_atomic
from kilonova.recipes import find_recipe
from kilonova.train.recipe import TrainRecipe
from kilonova.train.run import train
from kilonova.train.scaling.fit import Point, ScalingLaw, bootstrap_scaling_laws, fit_scaling_law

_BOOTSTRAP_SAMPLES = 100


@dataclass(frozen=True, kw_only=True)
class Rung:
    """One size of the ladder: fields of `model.config` that replace the base recipe's, and its learning rates."""

    name: str
    config: dict
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """The run that the fitted law must predict."""

    size: Rung
    tokens: float


@dataclass(frozen=True, kw_only=True)
class ScalingStudy:
    """Runs of `base`, a recipe, at every size in `sizes` and every token count in `tokens`.

    `overrides` apply to all runs. `held_out`, a size and a token count, is trained too but kept from the fit, which
    must predict it; its size may be outside the ladder.
    """

    base: str
    output: str
    overrides: tuple[str, ...] = ()
    sizes: tuple[Rung, ...]
    tokens: tuple[float, ...]
    held_out: HeldOut

    def __post_init__(self) -> None:
        if len({rung.name for rung in (*self.sizes, self.held_out.size)}) <= len(self.sizes):
            raise ConfigError("sizes: names must differ, the held-out size's included")


@dataclass(frozen=True)
class StudyResult:
    """Every run's point, the law of all but the held-out one, and the prediction for that one with a 90 % interval."""

    points: list[Point]
    held_out: Point
    law: ScalingLaw
    alpha_interval: tuple[float, float]
    beta_interval: tuple[float, float]
    predicted: float
    predicted_interval: tuple[float, float]

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON values."""
        return asdict(self)


def run_study(path: str | Path, overrides: Sequence[str] = ()) -> StudyResult:
    """Train what is missing of a study's runs (each resumes by itself), fit the law, and write `scaling.json`."""
    study = load_config(ScalingStudy, find_recipe(path), overrides)
    points = [_run(study, rung, tokens) for rung in study.sizes for tokens in study.tokens]
    held_out = _run(study, study.held_out.size, study.held_out.tokens)
    result = analyse(points, held_out)
    write_atomic(Path(study.output) / "scaling.json", json.dumps(result.to_dict(), indent=1) + "\n")
    return result


def analyse(points: list[Point], held_out: Point) -> StudyResult:
    """Fit the law to `points` and predict `held_out` from it."""
    law = fit_scaling_law(points)
    laws = bootstrap_scaling_laws(points, law, _BOOTSTRAP_SAMPLES)
    return StudyResult(
        points,
        held_out,
        law,
        _interval([one.alpha for one in laws]),
        _interval([one.beta for one in laws]),
        law.loss(held_out.parameters, held_out.tokens),
        _interval([one.loss(held_out.parameters, held_out.tokens) for one in laws]),
    )


def _interval(values: Sequence[float]) -> tuple[float, float]:
    low, high = np.percentile(values, (5, 95))
    return float(low), float(high)


def _run(study: ScalingStudy, rung: Rung, tokens: float) -> Point:
    """Train one run, unless its model is there already, and read its record."""
    name = f"{rung.name}-{tokens / 1e6:g}M"
    output = Path(study.output) / name
    record_path = output / "model" / "training.json"
    if not record_path.exists():
        base = load_config(TrainRecipe, find_recipe(study.base), study.overrides)
        steps = round(tokens / (base.batch_size * base.data.sequence_length))
        shape = [f"model.config.{key}={json.dumps(value)}" for key, value in rung.config.items()]
        train(study.base, [*study.overrides, *shape, *rung.overrides, f"output={output}", f"steps={steps}"])
    record = json.loads(record_path.read_text(encoding="utf-8"))
    losses = record["validation_loss"].values()
    if not losses:
        raise ConfigError(f"base: {study.base} has no data.validation to measure the loss on")
    return Point(name, record["parameters"], record["tokens"], record["flops"], sum(losses) / len(losses))
