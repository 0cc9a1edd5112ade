"""`kilonova eval`: a table, or exactly one JSON object."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import zstandard
from typer.testing import CliRunner

from kilonova.cli import eval as eval_verb
from kilonova.core.errors import ConfigError, InvalidRequest

KILONOVA = str(Path(sys.executable).with_name("kilonova"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with the one file that the task `openstax` reads."""
    (tmp_path / "text").mkdir()
    rows = [{"text": f"Chapter {number}. The quick brown fox jumps over the lazy dog."} for number in range(8)]
    compressed = zstandard.compress("\n".join(map(json.dumps, rows)).encode())
    (tmp_path / "text" / "openstax_en_val.jsonl.zst").write_bytes(compressed)
    return tmp_path


def test_json_is_one_object_and_nothing_else(tiny_micro_directory: Path, data: Path) -> None:
    arguments = [str(tiny_micro_directory), "--data", str(data), "--task", "openstax", "--limit", "2", "--json"]
    arguments += ["--output", str(data / "report.json"), "--context-length", "16"]

    result = subprocess.run([KILONOVA, "eval", *arguments], capture_output=True, text=True, timeout=120, check=True)

    report = json.loads(result.stdout)
    assert json.loads((data / "report.json").read_text()) == report
    (score,) = report["scores"]
    assert score["task"] == "openstax"
    assert score["low"] <= score["value"] <= score["high"]


def test_table_shows_the_task(tiny_micro_directory: Path, data: Path) -> None:
    arguments = [str(tiny_micro_directory), "--data", str(data), "--task", "openstax", "--limit", "2"]

    result = CliRunner().invoke(eval_verb.app, arguments, env={"COLUMNS": "160"}, catch_exceptions=False)

    assert "openstax" in result.stdout
    assert "bits_per_byte" in result.stdout


def test_unknown_task_names_the_nearest(tiny_micro_directory: Path, data: Path) -> None:
    result = CliRunner().invoke(eval_verb.app, [str(tiny_micro_directory), "--data", str(data), "--task", "openstacks"])

    assert isinstance(result.exception, InvalidRequest)
    assert "'openstax'" in str(result.exception)


def test_missing_extra_is_named(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eval_verb, "EXTRA_PACKAGES", ("no_such_package",))

    result = CliRunner().invoke(eval_verb.app, ["micro", "--data", str(data)])

    assert isinstance(result.exception, ConfigError)
    assert "kilonova[eval]" in str(result.exception)
