"""Goodput of a run whose ranks are killed at random, and whether it ends as one that nothing befell.

Two ranks train on the Python standard library's own source under `kilonova train --max-restarts`; at exponentially
distributed times one of them gets SIGKILL. Then the same steps run undisturbed, and every loss must be the same number.

    python benchmarks/goodput.py [--minutes 30] [--mean-minutes 2] [--model DIR] [--json]

What the costs that its ledger shows mean for one fault an hour is computed twice: by a formula, with half an interval
between saves lost to each fault, and by simulation.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

import kilonova
from kilonova.core.progress import ProgressReporter
from kilonova.train.goodput.report import GoodputReport, goodput_report
from kilonova.train.goodput.table import report_tables

MICRO = Path(kilonova.__file__).parent / "weights" / "micro"
RANKS = 2
FOR_EVER = 10**9


@dataclass(frozen=True)
class Costs:
    """What a run loses to what, in seconds; `overhead` is the share of time lost whether or not there are faults.

    A save stalls the run for `stall` and can be restored from `save` after it began, every `interval` of training.
    """

    overhead: float
    stall: float
    save: float
    interval: float
    restart: float

    @classmethod
    def of(cls, report: GoodputReport, checkpoint_every: int) -> Costs | None:
        """From a report with at least one repair."""
        if report.restart is None or report.median_step is None:
            return None
        useful = report.seconds["compute"] + report.seconds["communication"]
        lost = sum(report.seconds[name] for name in ("data_wait", "evaluation", "idle"))
        saves = report.checkpoints
        interval = checkpoint_every * useful / report.steps
        return cls(lost / (lost + useful), saves["stall_per_save"], saves["seconds_per_save"], interval, report.restart)

    @property
    def cycle(self) -> float:
        """From one save to the next."""
        return self.interval / (1 - self.overhead) + self.stall

    def predicted(self, mean_seconds: float) -> float:
        """Goodput with a fault every `mean_seconds`: half a cycle is lost to each, and a save that was not complete."""
        return self.interval / self.cycle * (1 - (self.cycle / 2 + self.save + self.restart) / mean_seconds)

    def simulated(self, mean_seconds: float, generator: random.Random, faults: int = 20_000) -> float:
        """The same, over so many faults at exponentially distributed times of a run's life."""
        training = self.cycle - self.stall
        wall = useful = 0.0
        for _ in range(faults):
            left = generator.expovariate(1 / mean_seconds)
            wall += left
            left -= self.restart
            if left > 0:
                # Those saves are complete whose writing ended before the fault.
                complete = max(0, int((left - training - self.save) // self.cycle) + 1)
                useful += complete * self.interval
        return useful / wall


def overrides(folder: Path, model: Path) -> dict[str, Any]:
    """The recipe but for its output and steps. The learning rate is held, so that it does not depend on the steps."""
    root = Path(sysconfig.get_path("stdlib"))
    text = "\n\n".join(path.read_text(encoding="utf-8", errors="ignore") for path in sorted(root.glob("a*.py")))
    (folder / "text.txt").write_text(text, encoding="utf-8")
    return {
        "objective": "pretrain",
        "model": {"init_from": str(model)},
        "data": {
            "root": str(folder),
            "cache": str(folder / "cache"),
            "sequence_length": 128,
            "sources": [{"name": "standard library", "path": "text.txt"}],
        },
        "optimizer": {"lr": 1e-4},
        "schedule": {"decay_fraction": 0},
        "batch_size": 2 * RANKS,
        "micro_batch_size": 2,
        "device": "cpu",
        "compile": False,
        "threads": 1,
        "log_every": 1,
        "checkpoint_minutes": 1e6,
    }


def start(folder: Path, recipe: dict[str, Any]) -> subprocess.Popen[bytes]:
    path = folder / f"{Path(recipe['output']).name}.yaml"
    # JSON is YAML.
    path.write_text(json.dumps(recipe), encoding="utf-8")
    command = [sys.executable, "-m", "kilonova", "train", str(path)]
    command += ["--nproc-per-node", str(RANKS), "--max-restarts", str(FOR_EVER)]
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    with path.with_suffix(".err").open("wb") as errors:
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors, env=environment)


def disturb(run: subprocess.Popen[bytes], minutes: float, mean_minutes: float, generator: random.Random) -> int:
    """Kill ranks at random until the time is over, then stop the run; returns how many were killed."""
    end, killed = time.monotonic() + 60 * minutes, 0
    due = time.monotonic() + 60 * generator.expovariate(1 / mean_minutes)
    with ProgressReporter("disturbed run, seconds", round(60 * minutes)) as progress:
        while (now := time.monotonic()) < end:
            if run.poll() is not None:
                raise SystemExit(f"the run ended by itself, with status {run.returncode}")
            ranks = psutil.Process(run.pid).children()
            if now >= due and ranks:
                generator.choice(ranks).send_signal(signal.SIGKILL)
                killed += 1
                due = now + 60 * generator.expovariate(1 / mean_minutes)
            progress.update(round(60 * minutes - (end - now)), f"{killed} killed")
            time.sleep(0.1)
    run.terminate()
    run.wait()
    return killed


def losses(run: Path) -> dict[int, set[float]]:
    """All losses that were logged of each step."""
    found: dict[int, set[float]] = defaultdict(set)
    log = run / "log.jsonl"
    if not log.exists():
        raise SystemExit("no step was taken between the kills; raise --minutes and --mean-minutes")
    for line in log.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        if "loss" in record:
            found[record["step"]].add(record["loss"])
    return dict(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0, help="how long the disturbed run goes on")
    parser.add_argument("--mean-minutes", type=float, default=2.0, help="mean time between two kills")
    parser.add_argument("--checkpoint-every", type=int, default=50, help="steps between saves")
    parser.add_argument("--model", type=Path, default=MICRO, help="checkpoint to train, the shipped Micro unless given")
    parser.add_argument("--seed", type=int, default=0, help="of the times of the kills")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    arguments = parser.parse_args()
    generator = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        recipe = overrides(folder, arguments.model) | {"checkpoint_every": arguments.checkpoint_every}
        disturbed, calm = folder / "disturbed", folder / "calm"
        run = start(folder, recipe | {"output": str(disturbed), "steps": FOR_EVER})
        try:
            killed = disturb(run, arguments.minutes, arguments.mean_minutes, generator)
        finally:
            run.kill()
        report = goodput_report(disturbed)
        ours = losses(disturbed)
        undisturbed = start(folder, recipe | {"output": str(calm), "steps": max(ours)})
        try:
            if undisturbed.wait():
                raise SystemExit((folder / "calm.err").read_text(encoding="utf-8"))
        finally:
            undisturbed.kill()
        loss_equal = ours == losses(calm)
    costs = Costs.of(report, arguments.checkpoint_every)
    result: dict[str, Any] = {
        "goodput": report.goodput,
        "mttr_s": report.mttr,
        "restart_s": report.restart,
        "loss_equal": loss_equal,
        "killed": killed,
        "faults": report.faults,
        "steps": report.steps,
        "minutes": arguments.minutes,
        "mean_minutes": arguments.mean_minutes,
        "checkpoint_every": arguments.checkpoint_every,
        "classes": report.seconds,
        "costs": costs and asdict(costs),
        "one_fault_an_hour": costs
        and {"predicted": costs.predicted(3600), "simulated": costs.simulated(3600, generator)},
    }
    if arguments.json:
        print(json.dumps(result))
        return
    console = Console(width=140)
    for table in report_tables(Path("disturbed run"), report):
        console.print(table)
    summary = Table(show_header=False)
    summary.add_row("losses of all steps as in the undisturbed run", "yes" if loss_equal else "NO")
    if costs is not None:
        summary.add_row("goodput with one fault an hour, predicted", f"{costs.predicted(3600):.2%}")
        summary.add_row("goodput with one fault an hour, simulated", f"{result['one_fault_an_hour']['simulated']:.2%}")
    console.print(summary)


if __name__ == "__main__":
    main()
