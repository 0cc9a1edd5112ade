"""`kilonova usage`: tables, JSON and CSV of a ledger."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from tests.serve.ledger.conftest import make_row
from typer.testing import CliRunner, Result

from kilonova.cli.usage import app
from kilonova.core.errors import ConfigError, InvalidRequest
from kilonova.serve.database import Database, default_url
from kilonova.serve.ledger.tables import calls


@pytest.fixture
def data(tmp_path: Path) -> Path:
    database = Database(default_url(tmp_path))
    database.migrate()
    used = {"status": "finished", "input_tokens": 1200, "output_tokens": 34, "time_to_first_token": 0.05}
    rows = [
        make_row("1", key_id="A", key_name="alpha", price=46_760_000, **used),
        make_row("2", key_id="A", key_name="alpha", price=46_760_000, **used),
        make_row("3", status="failed", model="lite"),
        make_row("4", status="refused", model="lite", started_at=1),
    ]
    with database.write() as connection:
        connection.execute(calls.insert(), rows)
    database.close()
    return tmp_path


def invoke(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})
    if result.exception is not None:
        raise result.exception
    return result


def test_table(data: Path) -> None:
    text = invoke("--data", data, "--by", "key", "--by", "model").stdout
    lines = {line.split("│")[1].strip(): line for line in text.splitlines() if line.startswith("│")}
    assert [cell.strip() for cell in lines["alpha"].split("│")[2:]] == [
        *("micro", "2", "0", "0", "0", "2,400", "0", "0", "68", "0.000094", "50 ms", "50 ms", "")
    ]
    assert [cell.strip() for cell in lines["(none)"].split("│")[2:6]] == ["lite", "1", "0", "1"]
    assert [cell.strip() for cell in lines["total"].split("│")[2:6]] == ["", "3", "0", "1"]


def test_json_and_csv_agree(data: Path) -> None:
    report = json.loads(invoke("--data", data, "--json", "--by", "model", "--since", "1970-01-01").stdout)
    assert report["by"] == ["model"]
    assert report["total"]["requests"] == 4
    assert [(row["model"], row["requests"], row["refused"]) for row in report["rows"]] == [
        ("lite", 2, 1),
        ("micro", 2, 0),
    ]
    assert report["rows"][1]["price_usd"] == "0.00009352"
    text = invoke("--data", data, "--csv", "--by", "model", "--since", "1970-01-01").stdout
    rows = list(csv.DictReader(io.StringIO(text)))
    assert rows == [{k: "" if v is None else str(v) for k, v in row.items()} for row in report["rows"]]


def test_filters(data: Path) -> None:
    url = default_url(data)
    assert json.loads(invoke("--database", url, "--json", "--key", "alpha").stdout)["total"]["requests"] == 2
    assert json.loads(invoke("--database", url, "--json", "--model", "lite").stdout)["total"]["requests"] == 1
    assert "No calls" in invoke("--data", data, "--until", "1960-01-01", "--since", "1950-01-01").stdout
    assert invoke("--data", data, "--csv", "--model", "x").stdout.startswith("day,requests,")


def test_wrong_usage(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no server has run there"):
        invoke("--data", tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere").exists()
    with pytest.raises(InvalidRequest, match="--since"):
        invoke("--data", data, "--since", "soon")
    with pytest.raises(InvalidRequest, match="by"):
        invoke("--data", data, "--by", "colour")
    with pytest.raises(ConfigError, match="--csv"):
        invoke("--data", data, "--json", "--csv")
