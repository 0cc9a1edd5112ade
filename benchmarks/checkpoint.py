"""What checkpoints cost: the stall of a save, the restart of a run, and finding the newest of a thousand.

A model trains on the Python standard library's own source with a save every --interval steps; then a new process goes
on from the last checkpoint. All times are read from the run's ledger.

    python benchmarks/checkpoint.py [--interval 100] [--saves 3] [--model DIR] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import kilonova
from kilonova.train.checkpoint.folder import CheckpointFolder, Manifest, file_record
from kilonova.train.goodput.attempts import Attempt, read_ledger
from kilonova.train.goodput.report import goodput_report

MICRO = Path(kilonova.__file__).parent / "weights" / "micro"


def overrides(folder: Path, model: Path) -> dict[str, Any]:
    """A recipe of small steps, as its keys."""
    root = Path(sysconfig.get_path("stdlib"))
    text = "\n\n".join(path.read_text(encoding="utf-8", errors="ignore") for path in sorted(root.glob("a*.py")))
    (folder / "text.txt").write_text(text, encoding="utf-8")
    return {
        "objective": "pretrain",
        "output": str(folder / "run"),
        "model": {"init_from": str(model)},
        "data": {
            "root": str(folder),
            "cache": str(folder / "cache"),
            "sequence_length": 128,
            "sources": [{"name": "standard library", "path": "text.txt"}],
        },
        "optimizer": {"lr": 1e-4},
        "batch_size": 4,
        "micro_batch_size": 4,
        "compile": False,
        "checkpoint_minutes": 1e6,
    }


def train(folder: Path, recipe: dict[str, Any], **changes: Any) -> Attempt:
    """Run the command; what its process booked."""
    path = folder / "recipe.yaml"
    # JSON is YAML.
    path.write_text(json.dumps(recipe | changes), encoding="utf-8")
    command = [sys.executable, "-m", "kilonova", "train", str(path)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"KILONOVA_DEBUG": "1"})
    return read_ledger(Path(recipe["output"]) / "ledger" / "rank-0.jsonl")[-1]


def stall(run: Path, interval: int) -> dict[str, float]:
    """Seconds a save held up the steps and took in all, and what that is of `interval` steps."""
    report = goodput_report(run)
    assert report.median_step is not None
    saves = report.checkpoints
    return {
        "stall_seconds_per_save": saves["stall_per_save"],
        "save_seconds": saves["seconds_per_save"],
        "median_step_seconds": report.median_step,
        "stall_share": saves["stall_per_save"] / (interval * report.median_step),
        "slowdown_of_steps_beside": saves["slowdown_of_steps_beside"],
    }


def restart(attempt: Attempt) -> dict[str, float]:
    """Seconds from the start of the process to the end of its first step, and what they went into."""
    first = next(segment.step for segment in attempt.segments if segment.activity == "compute")
    end = max(segment.end for segment in attempt.segments if segment.step == first)
    parts: dict[str, float] = defaultdict(float)
    for segment in attempt.segments:
        if segment.end <= end:
            parts["first step" if segment.step == first else segment.activity] += segment.seconds
    return {"total": end - attempt.started, **parts}


def locate(folder: Path, count: int) -> dict[str, float]:
    """Milliseconds to find the newest of `count` checkpoints, by the pointer and by a scan without it."""
    checkpoints = CheckpointFolder(folder / "many")
    for step in range(1, count + 1):
        directory = checkpoints.incomplete(step)
        directory.mkdir(parents=True)
        (directory / "__0_0.distcp").write_bytes(b"weights")
        files = {"__0_0.distcp": file_record(directory / "__0_0.distcp")}
        checkpoints.commit(Manifest(step=step, world_size=1, files=files))
    found = {}
    for name in ("pointer", "scan"):
        if name == "scan":
            (checkpoints.path / "latest").unlink()
        times = []
        for _ in range(20):
            started = time.perf_counter()
            assert checkpoints.newest() == count
            times.append(1000 * (time.perf_counter() - started))
        found[name] = statistics.median(times)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--interval", type=int, default=100, help="steps between saves")
    parser.add_argument("--saves", type=int, default=3)
    parser.add_argument("--model", type=Path, default=MICRO, help="checkpoint to train, the shipped Micro unless given")
    parser.add_argument("--checkpoints", type=int, default=1000, help="how many to find the newest of")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        recipe = overrides(folder, arguments.model)
        steps = arguments.interval * arguments.saves + max(1, arguments.interval // 2)
        train(folder, recipe, steps=steps, checkpoint_every=arguments.interval)
        stalls = stall(folder / "run", arguments.interval)
        newest = CheckpointFolder(folder / "run/checkpoints")
        files = newest.manifest(steps).files
        continued = train(folder, recipe, steps=steps + 2, checkpoint_every=arguments.interval)
        result = {
            "interval": arguments.interval,
            "checkpoint_megabytes": sum(record.bytes for record in files.values()) / 1e6,
            **stalls,
            "restart_seconds": restart(continued),
            "locate_milliseconds": {"checkpoints": arguments.checkpoints, **locate(folder, arguments.checkpoints)},
        }
    if arguments.json:
        print(json.dumps(result))
        return
    table = Table(show_header=False)
    for name, value in result.items():
        text = value if not isinstance(value, dict) else ", ".join(f"{key} {part:.4g}" for key, part in value.items())
        table.add_row(name.replace("_", " "), text if isinstance(text, str) else f"{text:.4g}")
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
