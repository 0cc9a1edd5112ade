"""`kilonova data instruct`: writes conversations and says what is in them."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from kilonova.cli.data import app
from kilonova.core.errors import DataError


def test_instruct_writes_conversations(tmp_path: Path) -> None:
    output = tmp_path / "instruct.jsonl"
    arguments = ["instruct", str(tmp_path), "--output", str(output), "--source", "identity", "--limit", "20"]
    report = tmp_path / "report.json"

    result = CliRunner().invoke(app, [*arguments, "--report", str(report), "--json"], catch_exceptions=False)

    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert json.loads(result.stdout)["rows"] == len(rows) > 0
    assert json.loads(report.read_text()) == json.loads(result.stdout)
    assert all(row["messages"][-1]["role"] == "assistant" for row in rows)


def test_instruct_shows_a_table(tmp_path: Path) -> None:
    arguments = ["instruct", str(tmp_path), "--output", str(tmp_path / "out.jsonl"), "--source", "identity"]

    result = CliRunner().invoke(app, [*arguments, "--limit", "5"], env={"COLUMNS": "160"}, catch_exceptions=False)

    assert "identity" in result.stdout


def test_unknown_source_names_the_nearest(tmp_path: Path) -> None:
    arguments = ["instruct", str(tmp_path), "--output", str(tmp_path / "out.jsonl"), "--source", "identty"]

    result = CliRunner().invoke(app, arguments)

    assert isinstance(result.exception, DataError)
    assert "'identity'" in str(result.exception)
    assert not (tmp_path / "out.jsonl").exists()
