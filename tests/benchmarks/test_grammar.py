"""`benchmarks/grammar.py` measures every grammar."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "grammar.py"


def test_measures_every_grammar(tiny_micro_directory: Path) -> None:
    arguments = ["--model", str(tiny_micro_directory), "--answers", "1", "--new-tokens", "8", "--json"]

    result = subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, timeout=120, check=True
    )

    report = json.loads(result.stdout)
    assert report["free_step_us"] > 0
    assert len(report["rows"]) == 6
    for row in report["rows"]:
        assert 0 < row["mask_us"] <= row["mask_us_p95"]
        assert row["tokens"] == 8
        assert 0 <= row["forced"] <= 1
