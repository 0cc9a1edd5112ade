"""Faults on purpose, to rehearse what a run does about them."""

from __future__ import annotations

import errno
import os
import signal
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint import FileSystemWriter

from kilonova.train.checkpoint.checkpointer import Checkpointer
from kilonova.train.checkpoint.folder import CheckpointFolder
from kilonova.train.faults.section import Fault, FaultKind


class InjectedFault(RuntimeError):
    """What the fault `exception` raises."""


class FaultInjector:
    """Makes the scheduled faults of one rank happen; `directory` remembers which already did."""

    def __init__(self, schedule: tuple[Fault, ...], rank: int, directory: Path) -> None:
        self._schedule = [(number, fault) for number, fault in enumerate(schedule) if fault.rank == rank]
        self._directory = directory

    def before_step(self, step: int, checkpoints: Checkpointer) -> None:
        """What befalls the process before a step."""
        for kind in self._due(step, "kill", "hang", "exception", "corrupt", "full_disk"):
            match kind:
                case "hang":
                    while True:
                        time.sleep(1)
                case "exception":
                    raise InjectedFault(f"injected at step {step}")
                case "full_disk":
                    checkpoints.writer = FullDiskWriter
                case "corrupt":
                    checkpoints.wait()
                    corrupt_newest(checkpoints.folder)
                    os.kill(os.getpid(), signal.SIGKILL)
                case "kill":
                    os.kill(os.getpid(), signal.SIGKILL)

    def after_backward(self, rows: int, model: nn.Module) -> None:
        """What befalls the gradients of the rows of step `rows`, each time they are computed."""
        if any(fault.kind == "nan" and fault.step == rows for _, fault in self._schedule):
            gradient = next(parameter.grad for parameter in model.parameters() if parameter.grad is not None)
            with torch.no_grad():
                gradient.mul_(float("nan"))

    def _due(self, step: int, *kinds: FaultKind) -> list[FaultKind]:
        due = [(number, fault) for number, fault in self._schedule if fault.step == step and fault.kind in kinds]
        return [fault.kind for number, fault in due if self._is_first_time(number)]

    def _is_first_time(self, number: int) -> bool:
        self._directory.mkdir(parents=True, exist_ok=True)
        try:
            os.close(os.open(self._directory / f"fault-{number}", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return False
        return True


def corrupt_newest(folder: CheckpointFolder) -> None:
    """Overwrite bytes in the middle of a file of the newest checkpoint, if there is one."""
    step = folder.newest()
    if step is None:
        return
    path = max(folder.checkpoint(step).glob("*.distcp"), key=lambda file: file.stat().st_size)
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"corrupt")


class FullDiskWriter(FileSystemWriter):
    """Writes as to a disk without space."""

    def write_data(self, *args: Any, **kwargs: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
