"""The Slurm script, with stand-ins for Slurm's two commands that make this machine two nodes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "launch" / "slurm.sbatch"
# Starts what it is given once for each node, as tasks of their own, and fails if one of them does.
SRUN = """#!/bin/bash
shift  # --kill-on-bad-exit=1
for node in $(seq "$SLURM_JOB_NUM_NODES"); do "$@" & done
status=0
for job in $(jobs -p); do wait "$job" || status=1; done
exit $status
"""
SCONTROL = """#!/bin/bash
if [ "$1" = show ]; then echo localhost; echo elsewhere; else echo "$@" >> "$SCONTROL_LOG"; fi
"""


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """The environment of a job on two nodes of one device each, that use a port that is free."""
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    # The script makes the port of the job's number.
    job = next(number for number in range(os.getpid() % 10_000, 10_000) if _is_free(20_000 + number))
    path = f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    return os.environ | {
        "PATH": path,
        "SCONTROL_LOG": str(tmp_path / "scontrol.log"),
        "SLURM_JOB_ID": str(job),
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_GPUS_ON_NODE": "1",
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
    }


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def submit(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(SCRIPT), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=250, check=False)


@pytest.mark.slow
def test_two_nodes_go_on_after_a_rank_dies(slurm: dict[str, str], recipe: Callable[..., Path]) -> None:
    path = recipe("slurm", "llama", checkpoint_every=1, faults={"at": [{"kind": "kill", "step": 2, "rank": 1}]})
    done = submit(slurm, str(path), "steps=3")
    assert done.returncode == 0, done.stderr[-3000:]
    output = path.with_suffix("")
    assert done.stdout.split() == [str(output / "model")]
    steps = [json.loads(line)["step"] for line in (output / "log.jsonl").read_text().splitlines()]
    # The fault came before the third step. The second is done again if its checkpoint was not yet written.
    assert steps in ([1, 2, 3, 3], [1, 2, 2, 3, 3])
    assert len(list((output / "faults").iterdir())) == 1
    assert not Path(slurm["SCONTROL_LOG"]).exists()


@pytest.mark.parametrize(
    ("seconds", "restarts", "requeued"), [("5000", "0", True), ("0", "0", False), ("5000", "20", False)]
)
def test_a_job_that_ends_early_returns_to_the_queue(
    slurm: dict[str, str], tmp_path: Path, seconds: str, restarts: str, requeued: bool
) -> None:
    (tmp_path / "torchrun").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "torchrun").chmod(0o755)
    # bash goes on counting from SECONDS.
    done = submit(slurm | {"SECONDS": seconds, "SLURM_RESTART_COUNT": restarts}, "recipe.yaml")
    assert done.returncode == 1
    log = Path(slurm["SCONTROL_LOG"])
    assert log.exists() == requeued
    if requeued:
        assert log.read_text() == f"requeue {slurm['SLURM_JOB_ID']}\n"


def test_a_job_needs_a_recipe(slurm: dict[str, str]) -> None:
    done = submit(slurm)
    assert done.returncode != 0
    assert "RECIPE" in done.stderr
