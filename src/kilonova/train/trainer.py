"""The training loop."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kilonova.core.errors import CheckpointError, ConfigError
from kilonova.train.checkpoint.checkpointer import Checkpointer, Restored, SaveResult
from kilonova.train.checkpoint.observer import observing
from kilonova.train.checkpoint.state import random_state, set_random_state
from kilonova.train.context import RunContext
from kilonova.train.faults.injection import FaultInjector
from kilonova.train.faults.stability import StabilityMonitor
from kilonova.train.faults.watchdog import Watchdog
from kilonova.train.meter import ThroughputMeter, matmul_flops_per_second
from kilonova.train.objective import Objective
from kilonova.train.optimizer import OptimizerSet
from kilonova.train.parallel.gradients import begin_micro_batch, clip_grad_norm, reduce_unsharded
from kilonova.train.run_log import RunLog, StepResult
from kilonova.train.schedule import learning_rate_factor
from kilonova.train.signals import Interrupted, StopSignals

# Their micro-batches are made by the model itself.
_MAKES_ITS_DATA = ("ppo", "grpo")


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
        self.mesh = context.mesh
        self.model = objective.trained
        self.output = Path(self.recipe.output)
        self.optimizer = OptimizerSet(self.model, self.recipe.optimizer)
        self.step = 0
        self.tokens = 0
        self.seconds = 0.0
        self.skipped_steps = 0
        """Steps whose update was dropped."""
        self.rows_ahead = 0
        """Steps' worth of rows that rewinds have left out."""
        self.peak_flops: dict[str, float] = {}
        self.ledger = context.ledger
        self.stability = StabilityMonitor(self.recipe.stability)
        rank, ranks = (0, 1) if self.mesh is None else (self.mesh.root.get_rank(), self.mesh.root.size())
        schedule = self.recipe.faults.schedule(self.recipe.steps, ranks)
        self.faults = FaultInjector(schedule, rank, self.output / "faults")
        self.watchdog = Watchdog(
            self.recipe.stability.step_timeout,
            self.output / f"hang-rank-{rank}.txt",
            lambda: self.ledger.note("hang", step=self.step),
        )
        self.checkpoints = Checkpointer(
            self.output / "checkpoints",
            self.model,
            self.optimizer.optimizers,
            self.recipe.keep_checkpoints,
            self.recipe.keep_every,
        )
        with self.ledger.during("restore"):
            self._restore()
        self.ledger.note("restored", step=self.step)

    def train(self) -> None:
        """Run all remaining steps. Raises `Interrupted` after SIGINT or SIGTERM, once the state is saved."""
        recipe = self.recipe
        with self.ledger.during("build"):
            meter = ThroughputMeter(self.objective.flops_per_token, self._peak_flops())
        if self.is_main:
            self.checkpoints.folder.clean()
        last_save = time.monotonic()
        with ExitStack() as stack:
            if self.is_main:
                stack.enter_context(observing(self.checkpoints.folder.path))
            stop = stack.enter_context(StopSignals())
            watchdog = stack.enter_context(self.watchdog)
            self.log = stack.enter_context(
                RunLog(recipe, meter, self.ledger, self._over_data_ranks, main=self.is_main, start=self.step)
            )
            while self.step < recipe.steps:
                self.faults.before_step(self.step, self.checkpoints)
                started = time.monotonic()
                with self.ledger.during("compute", self.step):
                    result = self.train_step()
                self.seconds += time.monotonic() - started
                if result is not None:
                    self.log.add(result, self.objective.tokens_per_step)
                    self._advance()
                last = self.step == recipe.steps
                if last or self.step % recipe.log_every == 0:
                    self.log.report(self.step, self.tokens)
                if last or self.step % recipe.evaluate_every == 0:
                    with self.ledger.during("evaluation"):
                        self.log.validation(self.step, self.objective.evaluate())
                due = time.monotonic() - last_save > 60 * recipe.checkpoint_minutes
                if self.mesh is not None:
                    with self.ledger.during("communication"):
                        due, stop.requested = self.mesh.any_rank(due, stop.requested)
                with self.ledger.during("checkpoint"):
                    if due or stop.requested or last or self.step % recipe.checkpoint_every == 0:
                        self._report(self.save())
                        last_save = time.monotonic()
                    self._report(self.checkpoints.finished())
                    if stop.requested and not last:
                        self._report(self.checkpoints.wait(), last=True)
                        raise Interrupted(f"stopped at step {self.step}; the same command continues from there")
                watchdog.beat()
            with self.ledger.during("checkpoint"):
                self._report(self.checkpoints.close(), last=True)

    def train_step(self) -> StepResult | None:
        """One optimiser step; None when it was a bad one that `stability` dropped."""
        recipe = self.recipe
        factor = learning_rate_factor(self.step, recipe.steps, recipe.schedule)
        self.optimizer.set_learning_rate_factor(factor)
        with self.ledger.during("compute" if recipe.objective in _MAKES_ITS_DATA else "data_wait"):
            batches = self.objective.micro_batches(self.step + self.rows_ahead)
        items = self._items_of_all_ranks(batches)
        sums: dict[str, Tensor] = {}
        for index, batch in enumerate(batches, start=1):
            if self.mesh is not None:
                begin_micro_batch(self.model, self.mesh, last=index == len(batches))
            loss = self.objective.loss(batch)
            (loss.total / items).backward()
            for name, value in {"loss": loss.total.detach(), **loss.metrics}.items():
                sums[name] = sums[name] + value if name in sums else value
        if self.mesh is not None:
            reduce_unsharded(self.model, self.mesh)
        self.faults.after_backward(self.step + self.rows_ahead, self.model)
        grad_norm = clip_grad_norm(self.model.parameters(), recipe.optimizer.max_grad_norm)
        means = {name: value / items for name, value in sums.items()}
        loss_of_all = self._over_data_ranks(means["loss"]) if self.stability.needs_loss else torch.zeros(())
        with self.ledger.during("checkpoint"):
            self.checkpoints.wait_until_staged()
        if reason := self.stability.judge(float(loss_of_all), float(grad_norm)):
            self.optimizer.zero_grad()
            self._drop_step(reason)
            return None
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.objective.step_done()
        return StepResult(means, grad_norm)

    def _advance(self) -> None:
        self.step += 1
        self.tokens += self.objective.tokens_per_step

    def _drop_step(self, reason: str) -> None:
        """Leave out a bad step or, if the recipe says to rewind, all since the newest checkpoint, with their rows."""
        self.ledger.enter("restore")
        bad, rows_ahead = self.step, self.rows_ahead
        if self.recipe.stability.bad_step == "rewind" and (restored := self._restore()) is not None:
            self.rows_ahead = rows_ahead + bad - restored.step + 1
            self.ledger.note("rewound", step=restored.step)
            what = f"went back from step {bad} to {restored.step}, leaving out the rows between: {reason}"
        else:
            self.ledger.note("skipped", step=bad)
            self.skipped_steps += 1
            self._advance()
            what = f"skipped step {bad}: {reason}"
        self.log.event(bad, what)
        self._warn(what)

    def save(self) -> SaveResult | None:
        """Begin to write a checkpoint from which the run continues exactly; returns how the one before it ended."""
        run = {
            "tokens": self.tokens,
            "seconds": self.seconds,
            "skipped_steps": self.skipped_steps,
            "rows_ahead": self.rows_ahead,
            "peak_flops": self.peak_flops,
            "order": self.recipe.order_of_data(),
        }
        own = {
            "objective": self.objective.state_dict(),
            "random": random_state(),
            "stability": self.stability.state_dict(),
        }
        return self.checkpoints.save(self.step, run, own)

    def _restore(self) -> Restored | None:
        restored = self.checkpoints.load_newest()
        if restored is None:
            return None
        run, own = restored.run, restored.own
        if run["order"] != self.recipe.order_of_data():
            raise ConfigError(
                f"output: {self.output} holds a run that reads its data in another order (sources, weights, "
                "temperature, sequence_length, batch_size or seed differ); name another folder, or remove it to start "
                "anew"
            )
        self.objective.load_state_dict(own["objective"])
        self.stability.load_state_dict(own["stability"])
        if restored.same_rank:
            set_random_state(own["random"])
        self.step, self.tokens, self.seconds = restored.step, run["tokens"], run["seconds"]
        self.skipped_steps, self.rows_ahead = run["skipped_steps"], run["rows_ahead"]
        self.peak_flops = run["peak_flops"]
        return restored

    def _report(self, saved: SaveResult | None, *, last: bool = False) -> None:
        """Training goes on without a checkpoint that could not be written; the one before stays."""
        if saved is None:
            return
        self.ledger.note("saved", step=saved.step, seconds=saved.seconds, error=saved.error)
        if saved.error is None:
            return
        message = f"the checkpoint of step {saved.step} could not be written: {saved.error}"
        if last:
            raise CheckpointError(message)
        self.log.event(self.step, message)
        self._warn(message)

    def _warn(self, message: str) -> None:
        if self.is_main:
            print(message, file=sys.stderr, flush=True)

    def _peak_flops(self) -> float:
        """Peak FLOPs a second of all devices, measured once in a run on each kind of device."""
        kind = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type
        key = f"{kind} {self.dtype}"
        if key not in self.peak_flops:
            self.peak_flops[key] = matmul_flops_per_second(self.device, self.dtype)
        peak = self.peak_flops[key] * (1 if self.mesh is None else self.mesh.root.size())
        flops = self.objective.flops_per_token * self.objective.tokens_per_step
        self.ledger.note("machine", flops_per_step=flops, peak_flops=peak)
        return peak

    def _items_of_all_ranks(self, batches: Sequence[Any]) -> float:
        items = torch.tensor(float(sum(map(self.objective.num_items, batches))))
        if self.mesh is not None:
            # The ranks meet here: who comes early waits for the slowest.
            with self.ledger.during("communication"):
                items = self._over_data_ranks(items)
        return max(1.0, items.item())

    @property
    def is_main(self) -> bool:
        """Whether this process logs for all."""
        return self.mesh is None or self.mesh.is_main

    def _over_data_ranks(self, values: Tensor) -> Tensor:
        """The sum over ranks that computed the loss of other rows or, as `PlacedDecoder` counts, positions."""
        return values if self.mesh is None else self.mesh.sum_over_ranks(values) / self.mesh.section.tensor
