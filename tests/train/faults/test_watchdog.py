import subprocess
import sys
import time
from pathlib import Path

import pytest

from kilonova.train.faults.watchdog import EXIT_CODE, Watchdog

_HANGS = """
import ctypes, sys, time
from pathlib import Path
from kilonova.train.faults.watchdog import Watchdog

def stuck():
    if sys.argv[2] == "python":
        time.sleep(600)
    else:  # keeps Python's lock, as a call into a library may
        ctypes.PyDLL(None).sleep(600)

with Watchdog(0.4, Path(sys.argv[1]), lambda: print("told", flush=True)) as watchdog:
    watchdog.beat()
    time.sleep(0.2)
    watchdog.beat()
    stuck()
"""


@pytest.mark.parametrize("where", ["python", "library"])
def test_a_process_that_hangs_ends_and_leaves_its_stacks(tmp_path: Path, where: str) -> None:
    command = [sys.executable, "-c", _HANGS, str(tmp_path / "report"), where]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == (EXIT_CODE if where == "python" else 1)
    assert ended.stdout == ("told\n" if where == "python" else "")
    assert "in stuck" in (tmp_path / "report").read_text()


def test_a_process_that_beats_lives(tmp_path: Path) -> None:
    with Watchdog(0.5, tmp_path / "report") as watchdog:
        for _ in range(20):
            time.sleep(0.05)
            watchdog.beat()
    assert not (tmp_path / "report").exists()
    with Watchdog(None, tmp_path / "report") as watchdog:
        watchdog.beat()
