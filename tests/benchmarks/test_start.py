"""`benchmarks/start.py` starts a real server and measures it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "start.py"


def test_measures_one_start(tiny_micro_directory: Path) -> None:
    arguments = ["--rounds", "1", "--model", "tiny", "--serve", f"--model tiny={tiny_micro_directory}", "--json"]

    result = subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, timeout=120, check=True
    )

    report = json.loads(result.stdout)
    (measured,) = report["rounds"]
    assert measured == report["median"]
    assert measured["first_answer_s"] > 0
    assert 0 < measured["after_first_mb"] <= measured["peak_mb"]
    assert set(report["budget"]) <= set(measured)


def test_a_server_that_does_not_start_is_reported(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, str(SCRIPT), "--rounds", "1", "--serve", f"--model tiny={tmp_path}"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert result.returncode == 1
    assert "config.json" in result.stderr
