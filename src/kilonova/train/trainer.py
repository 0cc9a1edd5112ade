"""The training loop: one process, one device."""

from __future__ import annotations

import json
import signal
import time
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kilonova.core.device import choose_device, choose_dtype
from kilonova.core.errors import ConfigError, KilonovaError
from kilonova.core.progress import ProgressReporter
from kilonova.data.packing import Batch, EpochSampler, RowDataset, make_batch
from kilonova.models.decoder.model import Decoder
from kilonova.train.checkpoint import load_newest_training_state, save_training_state
from kilonova.train.meter import ThroughputMeter, matmul_flops_per_second
from kilonova.train.objectives.language_model import language_model_loss, num_targets
from kilonova.train.optimizer import OptimizerSet
from kilonova.train.recipe import TrainRecipe
from kilonova.train.schedule import learning_rate_factor


class Interrupted(KilonovaError):
    """The run was asked to stop; its state is saved and the same command continues it."""


class Trainer:
    """Trains a decoder as a recipe says, and continues from the newest checkpoint of the recipe's output folder.

    Weights are float32; with `dtype` bfloat16 the forward pass runs under autocast. The order of rows is a function of
    seed and step, and no random number is drawn during a step, so on a CPU a run that was killed and resumed ends with
    the same bits as one that was not.
    """

    def __init__(
        self, recipe: TrainRecipe, model: Decoder, dataset: RowDataset, validation: dict[str, RowDataset]
    ) -> None:
        self.recipe = recipe
        self.device = choose_device(recipe.device)
        self.dtype = choose_dtype(recipe.dtype, self.device)
        if recipe.threads is not None:
            torch.set_num_threads(recipe.threads)
        if self.device.type == "cuda":
            torch.set_float32_matmul_precision("high")
        self.output = Path(recipe.output)
        self.model = model.to(self.device)
        self.optimizer = OptimizerSet(self.model, recipe.optimizer)
        self.dataset = dataset
        self.validation = validation
        self.sampler = EpochSampler(len(dataset), recipe.batch_size, recipe.seed)
        self.step = 0
        self.tokens = 0
        self.seconds = 0.0
        self._hidden_states = model.hidden_states
        if recipe.compile:
            self._hidden_states = torch.compile(model.hidden_states, dynamic=False)
        self._resume()

    def train(self) -> None:
        """Run all remaining steps. Raises `Interrupted` after SIGINT or SIGTERM, once the state is saved."""
        recipe = self.recipe
        peak = matmul_flops_per_second(self.device, self.dtype)
        flops = self.model.flops_per_token(recipe.data.sequence_length)
        meter = ThroughputMeter(flops, peak)
        last_save = time.monotonic()
        losses: list[Tensor] = []
        with _StopSignals() as stop, ProgressReporter(recipe.objective, recipe.steps, self.step) as progress:
            while self.step < recipe.steps:
                started = time.monotonic()
                loss, grad_norm = self._train_step()
                losses.append(loss)
                self.step += 1
                self.tokens += recipe.batch_size * recipe.data.sequence_length
                meter.add(recipe.batch_size * recipe.data.sequence_length)
                self.seconds += time.monotonic() - started
                if self.step % recipe.log_every == 0 or self.step == recipe.steps:
                    record = self._record(losses, grad_norm, *meter.read())
                    self._log(record)
                    progress.update(self.step, _detail(record, recipe.steps - self.step))
                    losses.clear()
                if self.step % recipe.evaluate_every == 0 or self.step == recipe.steps:
                    self._log({"step": self.step, "validation": self.evaluate()})
                    meter.read()
                due = time.monotonic() - last_save > 60 * recipe.checkpoint_minutes
                if due or stop.requested or self.step % recipe.checkpoint_every == 0 or self.step == recipe.steps:
                    self.save()
                    last_save = time.monotonic()
                if stop.requested and self.step < recipe.steps:
                    raise Interrupted(f"stopped at step {self.step}; the same command continues from there")

    def _train_step(self) -> tuple[Tensor, Tensor]:
        """One optimiser step; returns the mean loss and the gradient norm before clipping (both stay on the device)."""
        recipe = self.recipe
        factor = learning_rate_factor(self.step, recipe.steps, recipe.schedule)
        self.optimizer.set_learning_rate_factor(factor)
        indices = self.sampler.indices(self.step)
        parts = [
            make_batch(self.dataset, indices[start : start + recipe.micro_batch_size])
            for start in range(0, len(indices), recipe.micro_batch_size)
        ]
        targets = max(1, sum(map(num_targets, parts)))
        total = torch.zeros((), device=self.device)
        for batch in parts:
            with self._autocast():
                loss = self._loss(batch) / targets
            loss.backward()
            total += loss.detach()
        grad_norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), recipe.optimizer.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return total, grad_norm

    @torch.no_grad()
    def evaluate(self, max_rows: int = 64) -> dict[str, float]:
        """Mean loss in nats a token on the first rows of each validation source."""
        results = {}
        size = self.recipe.micro_batch_size
        for name, dataset in self.validation.items():
            total, count = 0.0, 0
            # Whole micro-batches only: another shape would compile again.
            for start in range(0, min(len(dataset), max_rows) - size + 1, size):
                batch = make_batch(dataset, range(start, start + size))
                with self._autocast():
                    total += float(self._loss(batch))
                count += num_targets(batch)
            if count:
                results[name] = total / count
        return results

    def save(self) -> None:
        """Write a checkpoint from which the run continues exactly."""
        state: dict[str, Any] = {
            "step": self.step,
            "tokens": self.tokens,
            "seconds": self.seconds,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
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
        self.step, self.tokens, self.seconds = state["step"], state["tokens"], state["seconds"]

    def _loss(self, batch: Batch) -> Tensor:
        return language_model_loss(
            self._hidden_states, self.model.lm_head.weight, batch.to(self.device), self.recipe.compile
        )

    def _autocast(self) -> Any:
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def _record(self, losses: list[Tensor], grad_norm: Tensor, rate: float, mfu: float) -> dict[str, Any]:
        factor = learning_rate_factor(self.step - 1, self.recipe.steps, self.recipe.schedule)
        return {
            "step": self.step,
            "loss": float(torch.stack(losses).mean()),
            "grad_norm": float(grad_norm),
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
