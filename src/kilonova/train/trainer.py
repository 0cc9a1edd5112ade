"""The training loop: one process, one device."""

from __future__ import annotations

import json
import signal
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kilonova.core.errors import ConfigError, KilonovaError
from kilonova.core.progress import ProgressReporter
from kilonova.train.checkpoint import load_newest_training_state, save_training_state
from kilonova.train.context import RunContext
from kilonova.train.meter import ThroughputMeter, matmul_flops_per_second
from kilonova.train.objective import Objective
from kilonova.train.optimizer import OptimizerSet
from kilonova.train.recipe import TrainRecipe
from kilonova.train.schedule import learning_rate_factor


class Interrupted(KilonovaError):
    """The run was asked to stop; its state is saved and the same command continues it."""


@dataclass(frozen=True)
class StepResult:
    """What one step reports: means over its items, and the gradient norm before clipping (all still on the device)."""

    metrics: dict[str, Tensor]
    grad_norm: Tensor


class Trainer:
    """Minimises an objective as a recipe says, and continues from the newest checkpoint of the recipe's output folder.

    Weights are float32. The rows of a step are a function of seed and step, and no random number is drawn that the
    checkpoint does not hold, so on a CPU a run that was killed and resumed ends with the same bits as one that was not.
    """

    def __init__(self, context: RunContext, objective: Objective) -> None:
        self.recipe = context.recipe
        self.device = context.device
        self.dtype = context.dtype
        self.objective = objective
        self.model = objective.trained
        self.output = Path(self.recipe.output)
        self.optimizer = OptimizerSet(self.model, self.recipe.optimizer)
        self.step = 0
        self.tokens = 0
        self.seconds = 0.0
        self._resume()

    def train(self) -> None:
        """Run all remaining steps. Raises `Interrupted` after SIGINT or SIGTERM, once the state is saved."""
        recipe = self.recipe
        peak = matmul_flops_per_second(self.device, self.dtype)
        meter = ThroughputMeter(self.objective.flops_per_token, peak)
        last_save = time.monotonic()
        results: list[StepResult] = []
        with _StopSignals() as stop, ProgressReporter(recipe.objective, recipe.steps, self.step) as progress:
            while self.step < recipe.steps:
                started = time.monotonic()
                results.append(self._train_step())
                self.step += 1
                self.tokens += self.objective.tokens_per_step
                meter.add(self.objective.tokens_per_step)
                self.seconds += time.monotonic() - started
                if self.step % recipe.log_every == 0 or self.step == recipe.steps:
                    record = self._record(results, *meter.read())
                    self._log(record)
                    progress.update(self.step, _detail(record, recipe.steps - self.step))
                    results.clear()
                if self.step % recipe.evaluate_every == 0 or self.step == recipe.steps:
                    self._log({"step": self.step, "validation": self.objective.evaluate()})
                    meter.read()
                due = time.monotonic() - last_save > 60 * recipe.checkpoint_minutes
                if due or stop.requested or self.step % recipe.checkpoint_every == 0 or self.step == recipe.steps:
                    self.save()
                    last_save = time.monotonic()
                if stop.requested and self.step < recipe.steps:
                    raise Interrupted(f"stopped at step {self.step}; the same command continues from there")

    def _train_step(self) -> StepResult:
        """One optimiser step."""
        recipe = self.recipe
        factor = learning_rate_factor(self.step, recipe.steps, recipe.schedule)
        self.optimizer.set_learning_rate_factor(factor)
        batches = self.objective.micro_batches(self.step)
        items = max(1, sum(map(self.objective.num_items, batches)))
        sums: dict[str, Tensor] = {}
        for batch in batches:
            loss = self.objective.loss(batch)
            (loss.total / items).backward()
            for name, value in {"loss": loss.total.detach(), **loss.metrics}.items():
                sums[name] = sums[name] + value if name in sums else value
        parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        grad_norm = torch.nn.utils.clip_grad_norm_(parameters, recipe.optimizer.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return StepResult({name: value / items for name, value in sums.items()}, grad_norm)

    def save(self) -> None:
        """Write a checkpoint from which the run continues exactly."""
        state: dict[str, Any] = {
            "step": self.step,
            "tokens": self.tokens,
            "seconds": self.seconds,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "objective": self.objective.state_dict(),
            "order": _order_of_data(self.recipe),
        }
        save_training_state(self.output / "checkpoints", self.step, state, self.recipe.keep_checkpoints)

    def _resume(self) -> None:
        state = load_newest_training_state(self.output / "checkpoints")
        if state is None:
            return
        if state["order"] != _order_of_data(self.recipe):
            raise ConfigError(
                f"output: {self.output} holds a run that reads its data in another order (sources, weights, "
                "sequence_length, batch_size or seed differ); name another folder, or remove it to start anew"
            )
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.objective.load_state_dict(state["objective"])
        self.step, self.tokens, self.seconds = state["step"], state["tokens"], state["seconds"]

    def _record(self, results: list[StepResult], rate: float, mfu: float) -> dict[str, Any]:
        factor = learning_rate_factor(self.step - 1, self.recipe.steps, self.recipe.schedule)
        means = {name: float(torch.stack([r.metrics[name] for r in results]).mean()) for name in results[-1].metrics}
        return {
            "step": self.step,
            **means,
            "grad_norm": float(results[-1].grad_norm),
            "lr": self.recipe.optimizer.lr * factor,
            "tokens": self.tokens,
            "tokens_per_second": round(rate, 1),
            "mfu": round(mfu, 4),
        }

    def _log(self, record: dict[str, Any]) -> None:
        with (self.output / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(record) + "\n")


def _order_of_data(recipe: TrainRecipe) -> str:
    """What decides which rows a step reads."""
    sources = [(source.path, source.template, source.format, source.weight) for source in recipe.data.sources]
    length = recipe.data.sequence_length
    return json.dumps([recipe.objective, sources, length, recipe.batch_size, recipe.seed])


def _detail(record: dict[str, Any], steps_left: int) -> str:
    per_step = record["tokens"] / record["step"]
    left = timedelta(seconds=round(steps_left * per_step / max(record["tokens_per_second"], 1e-9)))
    return (
        f"loss {record['loss']:.3f}  {record['tokens_per_second']:.0f} tokens/s  MFU {record['mfu']:.0%}  {left} left"
    )


class _StopSignals:
    """Remembers SIGINT and SIGTERM, so that a step is finished and saved before the run ends."""

    def __enter__(self) -> _StopSignals:
        self.requested = False
        self._previous = {}
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._previous[number] = signal.signal(number, self._request)
            except ValueError:  # not the main thread: the caller handles signals
                break
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _request(self, *_: object) -> None:
        self.requested = True
