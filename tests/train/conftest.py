"""Processes that need not import training anew."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Ended:
    """How a process ended; `status` is minus the signal's number if one ended it."""

    status: int
    stdout: str
    stderr: str


@pytest.fixture(scope="session")
def fork(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., list[Ended]]]:
    """Runs `code`, with `arguments` as `sys.argv[1:]`, in one process for each of `environments`, all at once.

    They fork from a process that has imported training, as importing takes seconds.
    """
    command = [sys.executable, str(Path(__file__).parent / "forking.py")]
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    parent = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    stdin, stdout = parent.stdin, parent.stdout
    assert stdin is not None
    assert stdout is not None

    def run(code: str, *arguments: str, environments: Sequence[Mapping[str, str]] = ({},)) -> list[Ended]:
        folder = tmp_path_factory.mktemp("forked")
        request = {
            "code": code,
            "arguments": arguments,
            "environments": [dict(environment) for environment in environments],
            "folder": str(folder),
        }
        stdin.write(json.dumps(request) + "\n")
        stdin.flush()
        statuses = json.loads(stdout.readline())
        return [
            Ended(status, (folder / f"stdout-{number}").read_text(), (folder / f"stderr-{number}").read_text())
            for number, status in enumerate(statuses)
        ]

    yield run
    stdin.close()
    parent.wait()
