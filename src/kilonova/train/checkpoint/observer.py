"""A process beside a run that verifies each new checkpoint and keeps the map by which a restart loads at once.

`python -m kilonova.train.checkpoint.observer FOLDER PID` watches a folder until the process that started it is gone.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kilonova.core.errors import CheckpointError
from kilonova.train.checkpoint.folder import CheckpointFolder
from kilonova.train.checkpoint.map import ObservedMap

_PAUSE = 0.25


@contextmanager
def observing(directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Keep an observer of `directory` at work for the length of the block."""
    command = [sys.executable, "-m", __name__, str(directory), str(os.getpid())]
    observer = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        yield observer
    finally:
        observer.terminate()
        observer.wait()


def observe(directory: Path, parent: int) -> None:
    """Map every new newest checkpoint, unless it is corrupt, until `parent` is no longer this process's parent."""
    folder = CheckpointFolder(directory)
    looked_at: int | None = None
    while os.getppid() == parent:
        try:
            step = folder.newest()
            if step is not None and step != looked_at:
                looked_at = step
                found = ObservedMap.observe(folder, step)
                if found is None:
                    print(f"observer: the checkpoint of step {step} is corrupt", file=sys.stderr, flush=True)
                else:
                    found.write(directory)
        except (OSError, CheckpointError):
            looked_at = None  # pruned or set aside under our hands: look again
        time.sleep(_PAUSE)


if __name__ == "__main__":
    observe(Path(sys.argv[1]), int(sys.argv[2]))
