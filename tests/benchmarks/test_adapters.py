"""`benchmarks/adapters.py`, on a tiny model for seconds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "adapters.py"


@pytest.mark.parametrize("bits", ["16", "8"])
def test_every_case_is_measured(tiny_micro_directory: Path, bits: str) -> None:
    sizes = ["--streams", "3", "--rank", "2", "--new-tokens", "24", "--rounds", "2", "--bits", bits]
    command = [sys.executable, str(SCRIPT), "--model", str(tiny_micro_directory), *sizes, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(done.stdout)
    rows = {row["adapters"]: row for row in report["rows"]}
    assert rows.keys() == {"none", "one", "each its own"}
    assert rows["none"]["of_base"] == 1
    assert all(len(row["rounds"]) == 2 for row in rows.values())
