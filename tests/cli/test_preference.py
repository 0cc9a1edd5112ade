"""`kilonova preference` and `kilonova data preferences`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kilonova.cli import data, preference
from kilonova.core.errors import ConfigError, DataError


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    row = {
        "prompt": [{"role": "user", "content": "say fox"}],
        "chosen": [{"role": "assistant", "content": "fox"}],
        "rejected": [{"role": "assistant", "content": "a dog"}],
    }
    (tmp_path / "pairs.jsonl").write_text(json.dumps(row) + "\n")
    return tmp_path / "pairs.jsonl"


def test_json_is_one_object(tiny_micro_directory: Path, pairs: Path, tmp_path: Path) -> None:
    arguments = [str(tiny_micro_directory), "--pairs", str(pairs), "--output", str(tmp_path / "report.json"), "--json"]

    result = CliRunner().invoke(preference.app, arguments, catch_exceptions=False)

    report = json.loads(result.stdout)
    assert json.loads((tmp_path / "report.json").read_text()) == report
    assert {score["metric"] for score in report["scores"]} == {
        "logps_accuracy",
        "mean_logps_accuracy",
        "longer_is_better",
    }


def test_table_shows_the_metrics(tiny_micro_directory: Path, pairs: Path) -> None:
    arguments = [str(tiny_micro_directory), "--pairs", str(pairs)]

    result = CliRunner().invoke(preference.app, arguments, env={"COLUMNS": "200"}, catch_exceptions=False)

    assert "logps_accuracy" in result.stdout


def test_a_comparison_needs_both_options(tiny_micro_directory: Path, pairs: Path) -> None:
    arguments = [str(tiny_micro_directory), "--pairs", str(pairs), "--against", str(tiny_micro_directory)]

    result = CliRunner().invoke(preference.app, arguments)

    assert isinstance(result.exception, ConfigError)
    assert "--reward-model" in str(result.exception)


def test_data_preferences_writes_pairs_and_report(tmp_path: Path) -> None:
    output, report = tmp_path / "out.jsonl", tmp_path / "report.json"
    arguments = ["preferences", str(tmp_path), "--output", str(output), "--kind", "wrong_format", "--count", "40"]

    result = CliRunner().invoke(data.app, [*arguments, "--report", str(report), "--json"], catch_exceptions=False)

    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert json.loads(result.stdout)["pairs"] == len(rows)
    assert json.loads(report.read_text()) == json.loads(result.stdout)
    assert {row["kind"] for row in rows} == {"wrong_format"}


def test_data_preferences_names_an_unknown_kind(tmp_path: Path) -> None:
    arguments = ["preferences", str(tmp_path), "--output", str(tmp_path / "out.jsonl"), "--kind", "wrong_fromat"]

    result = CliRunner().invoke(data.app, arguments)

    assert isinstance(result.exception, DataError)
    assert "'wrong_format'" in str(result.exception)
