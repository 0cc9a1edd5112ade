"""`benchmarks/goodput.py` and `benchmarks/checkpoint.py`, on a tiny model for seconds."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def goodput() -> ModuleType:
    spec = importlib.util.spec_from_file_location("goodput_benchmark", BENCHMARKS / "goodput.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up by name.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def run(script: str, *arguments: str) -> dict:
    command = [sys.executable, str(BENCHMARKS / script), *arguments, "--json"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_prediction_and_simulation_agree(goodput: ModuleType) -> None:
    costs = goodput.Costs(overhead=0.01, stall=0.2, save=5.0, interval=60.0, restart=20.0)
    cycle = 60 / 0.99 + 0.2
    expected = 60 / cycle * (1 - (cycle / 2 + 5 + 20) / 3600)
    assert costs.predicted(3600) == pytest.approx(expected)
    assert costs.simulated(3600, random.Random(1)) == pytest.approx(expected, abs=0.001)
    # Without time to complete a save, nothing is ever gained.
    assert costs.simulated(1.0, random.Random(1)) == 0


@pytest.mark.slow
def test_a_disturbed_run_ends_as_a_calm_one(tiny_micro_directory: Path) -> None:
    settings = {"minutes": 0.3, "mean-minutes": 0.08, "checkpoint-every": 5}
    report = run(
        "goodput.py", "--model", str(tiny_micro_directory), *(f"--{name}={value}" for name, value in settings.items())
    )
    assert report["loss_equal"] is True
    assert report["killed"] > 0
    assert 0 < report["goodput"] < 1
    assert report["goodput"] * sum(report["classes"].values()) == pytest.approx(
        report["classes"]["compute"] + report["classes"]["communication"]
    )
    assert report["mttr_s"] >= report["restart_s"] > 0
    hourly = report["one_fault_an_hour"]
    assert hourly["simulated"] == pytest.approx(hourly["predicted"], abs=0.01)


@pytest.mark.slow
def test_checkpoints_are_measured(tiny_micro_directory: Path) -> None:
    arguments = ["--interval", "4", "--saves", "2", "--checkpoints", "30"]
    report = run("checkpoint.py", "--model", str(tiny_micro_directory), *arguments)
    assert report["stall_share"] == pytest.approx(
        report["stall_seconds_per_save"] / (4 * report["median_step_seconds"])
    )
    parts = dict(report["restart_seconds"])
    assert parts.pop("total") == pytest.approx(sum(parts.values()), rel=0.02)
    assert {"import", "build", "restore", "first step"} <= parts.keys()
    assert report["locate_milliseconds"]["pointer"] > 0
