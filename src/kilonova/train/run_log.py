"""What a run tells: to its log, to trackers, to the screen."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kilonova.train.goodput.ledger import Ledger
from kilonova.train.meter import ThroughputMeter
from kilonova.train.run_recipe import RunRecipe
from kilonova.train.run_view import RunView
from kilonova.train.schedule import learning_rate_factor
from kilonova.train.trackers import Tracker, open_trackers


@dataclass(frozen=True)
class StepResult:
    """What one step reports: means over its items, and the gradient norm before clipping (all still on the device)."""

    metrics: dict[str, Tensor]
    grad_norm: Tensor


class RunLog:
    """Gathers the results of steps and reports them every `log_every`: `log.jsonl`, trackers, screen.

    Every rank must call it alike, as `sum_over_ranks` makes the means of all; only the `main` one writes.
    """

    def __init__(
        self,
        recipe: RunRecipe,
        meter: ThroughputMeter,
        ledger: Ledger,
        sum_over_ranks: Callable[[Tensor], Tensor],
        *,
        main: bool,
        start: int,
    ) -> None:
        self._recipe, self._meter, self._ledger = recipe, meter, ledger
        self._sum_over_ranks = sum_over_ranks
        self._path = Path(recipe.output) / "log.jsonl" if main else None
        self._trackers: list[Tracker] = []
        self._view = RunView(f"{recipe.objective} {recipe.output}", recipe.steps, start, quiet=not main)
        self._results: list[StepResult] = []
        self._started, self._start = time.monotonic(), start

    def __enter__(self) -> RunLog:
        if self._path is not None:
            self._trackers = open_trackers(self._recipe.trackers, self._path.parent, asdict(self._recipe))
        self._view.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._view.__exit__(*exception)
        for tracker in self._trackers:
            tracker.close()

    def add(self, result: StepResult, tokens: int) -> None:
        """Take the result of one more step over `tokens` positions."""
        self._results.append(result)
        self._meter.add(tokens)

    def report(self, step: int, tokens: int) -> None:
        """Write the means since the last report; `step` and `tokens` count from the start of the run."""
        if not self._results:
            return
        rate, mfu = self._meter.read()
        names = sorted(self._results[-1].metrics)
        rows = [torch.stack([result.metrics[name] for name in names]) for result in self._results]
        means = self._sum_over_ranks(torch.stack(rows).mean(dim=0)).tolist()
        record = {
            "step": step,
            **dict(zip(names, means, strict=True)),
            "grad_norm": float(self._results[-1].grad_norm),
            "lr": self._recipe.optimizer.lr * learning_rate_factor(step - 1, self._recipe.steps, self._recipe.schedule),
            "tokens": tokens,
            "tokens_per_second": round(rate, 1),
            "mfu": round(mfu, 4),
        }
        self._results.clear()
        self._write(record)
        elapsed = time.monotonic() - self._started
        left = (self._recipe.steps - step) * elapsed / max(1, step - self._start)
        in_steps = self._ledger.seconds["compute"] + self._ledger.seconds["communication"]
        self._view.update(record, in_steps / (self._ledger.now() - self._ledger.started), left)
        self._track(step, {name: value for name, value in record.items() if name != "step"})

    def validation(self, step: int, results: dict[str, float]) -> None:
        """Write results on held-out data; the time they took does not count as training."""
        self._write({"step": step, "validation": results})
        self._view.validation(results)
        self._track(step, {f"validation/{name}": value for name, value in results.items()})
        self._meter.read()

    def event(self, step: int, what: str) -> None:
        """Write that something out of the ordinary happened."""
        self._write({"step": step, "event": what})

    def _track(self, step: int, values: dict[str, float]) -> None:
        for tracker in self._trackers:
            tracker.log(step, values)

    def _write(self, record: dict[str, Any]) -> None:
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as log:
                log.write(json.dumps(record) + "\n")
