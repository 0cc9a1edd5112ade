"""`benchmarks/server_load.py` with a few clients: what it checks, and that its checks can fail."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import sqlalchemy

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.slow
def test_nothing_is_lost_or_leaked(tiny_micro_directory: Path) -> None:
    options = ["--clients", "20", "--seconds", "6", "--rounds", "1", "--max-num-seqs", "8"]
    command = [
        sys.executable,
        str(BENCHMARKS / "server_load.py"),
        "--model",
        str(tiny_micro_directory),
        *options,
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    report = json.loads(done.stdout)
    assert report["lost_rows"] == report["leaks"] == report["errors"] == []
    assert report["outcomes"]["finished"] >= 5
    assert report["outcomes"]["left"] >= 1
    assert set(report["outcomes"]) <= {"finished", "left", "throttled"}
    assert report["server_tokens_per_s"] > 0
    assert report["bare_tokens_per_s"] > 0
    assert 0 < report["server_outside_steps"] < 1
    assert report["loop_us_per_token"] > 0


def test_a_missing_and_an_unfinished_row_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from kilonova.serve.database import Database, default_url
    from kilonova.serve.ledger.tables import calls
    from load.clients import Tally
    from server_load import find_lost, summarise

    database = Database(default_url(tmp_path))
    database.migrate()
    texts = {column.name: "" for column in calls.columns if isinstance(column.type, sqlalchemy.String)}
    numbers = {column.name: 0 for column in calls.columns if isinstance(column.type, sqlalchemy.Integer)}
    with database.write() as connection:
        for name, status in (("a", "finished"), ("b", "running")):
            row = {**texts, **numbers, "request_metadata": {}, "id": name, "status": status}
            connection.execute(calls.insert().values(row))
    database.close()
    assert find_lost(tmp_path, [Tally(Counter(), [], ["a", "b", "c"])]) == ["c: no row", "b: running"]

    rounds = [{"tokens": 90, "seconds": 2.0, "step_seconds": 1.5, "loop_cpu_seconds": 0.009}]
    bare = [{"tokens": 100, "seconds": 2.0, "step_seconds": 1.8, "cpu_seconds": 2.0}]
    report = summarise([Tally(Counter(finished=2), ["cut: "], [])], rounds, bare)
    assert report["ratio"] == 0.9
    assert report["server_outside_steps"] == 0.25
    assert report["loop_us_per_token"] == pytest.approx(100)
    assert report["errors"] == ["cut: "]
