"""`kilonova keys`: what it accepts, and what it says."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kilonova.cli.keys import app
from kilonova.core.errors import InvalidRequest


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_key_with_everything(tmp_path: Path) -> None:
    data = ("--data", str(tmp_path))
    options = ["--model", "amazon.nova-micro-v1:0", "--operation", "bedrock", "--operation", "models"]
    options += ["--expires", "90d", "--requests-per-minute", "60", "--tokens-per-minute", "1000"]
    options += ["--tokens-per-day", "50000", "--budget-usd", "0.50", "--budget-period", "day"]
    made = json.loads(run("create", "web", *options, *data, "--json"))
    assert made["models"] == ["micro"]
    assert {"Converse", "InvokeModel", "models"} < set(made["operations"])
    assert (made["requests_per_minute"], made["tokens_per_minute"], made["tokens_per_day"]) == (60, 1000, 50_000)
    assert (made["budget_usd"], made["budget_period"]) == ("0.50", "day")
    expires = datetime.fromisoformat(made["expires_at"])
    assert abs(expires - datetime.now(UTC) - timedelta(days=90)) < timedelta(minutes=5)

    (listed,) = json.loads(run("list", "--json", *data))
    secret = {"bedrock_key", "openai_key", "access_key_id", "secret_access_key"}
    assert listed == {name: value for name, value in made.items() if name not in secret}
    table = run("list", *data)
    for text in ("web", made["id"], "active", "micro", "bedrock", "60 requests a minute", "$0.50 a day"):
        assert text in table
    run("revoke", made["id"], *data)
    assert "revoked" in run("list", *data)


def test_what_is_printed_once(tmp_path: Path) -> None:
    printed = run("create", "web", "--data", str(tmp_path), "--url", "https://models.example:8443/")
    lines = printed.splitlines()
    for start in ("bedrock key", "openai key", "access key id", "secret access key"):
        assert any(line.startswith(start) for line in lines)
    for start in (
        "export AWS_ACCESS_KEY_ID=AKKN",
        "export AWS_BEARER_TOKEN_BEDROCK=ABSK",
        "export OPENAI_API_KEY=sk-",
        "curl -s https://models.example:8443/v1/models -H 'authorization: Bearer sk-",
    ):
        assert any(line.startswith(start) for line in lines), start


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--operation", "converse"], "no operation 'converse': did you mean 'Converse'?"),
        (["--expires", "soon"], "--expires soon: minutes, hours or days such as 30m"),
        (["--expires", "99999999999d"], "--expires"),
        (["--expires", "2020-01-31"], "--expires 2020-01-31: this time is over"),
        (["--expires", "0d"], "this time is over"),
        (["--budget-usd", "ten"], "'ten' is no budget: an amount of dollars above 0"),
        (["--budget-usd", "-1"], "'-1' is no budget"),
        (["--budget-usd", "NaN"], "'NaN' is no budget"),
        (["--budget-usd", "1e99"], "'1e99' is no budget"),
        (["--budget-usd", "0.00000001"], "'0.00000001' is no budget"),
        (["--url", "localhost:8080"], "--url localhost:8080: an address such as http://"),
        (["--database", "mysql://host/name"], "sqlite:///FILE or postgresql://"),
    ],
)
def test_wrong_options_are_named(options: list[str], message: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["create", "web", "--data", str(tmp_path), *options])
    assert isinstance(result.exception, Exception)
    assert message in str(result.exception)
    assert not (tmp_path / "kilonova.db").exists()


@pytest.mark.parametrize("name", ["", "  ", "a" * 101, "two\nlines"])
def test_names_are_printable(name: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["create", name, "--data", str(tmp_path)])
    assert isinstance(result.exception, InvalidRequest)


def test_names_are_shown_as_they_are(tmp_path: Path) -> None:
    assert "[red]web[/]" in run("create", "[red]web[/]", "--data", str(tmp_path))
    assert "[red]web[/]" in run("list", "--data", str(tmp_path))


def test_a_model_that_is_not_here_is_warned_of(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["create", "web", "--model", "elsewhere", "--data", str(tmp_path), "--json"])
    assert "no model 'elsewhere'" in result.stderr
    assert json.loads(result.stdout)["models"] == ["elsewhere"]


def test_the_database_is_the_one_that_the_settings_name(tmp_path: Path) -> None:
    (tmp_path / "kilonova.toml").write_text(f'[server]\ndatabase = "sqlite:///{tmp_path}/other.db"\n')
    run("create", "web", "--data", str(tmp_path))
    assert (tmp_path / "other.db").exists()
    assert not (tmp_path / "kilonova.db").exists()
    assert "web" in run("list", "--data", str(tmp_path))
    elsewhere = f"sqlite:///{tmp_path}/third.db"
    assert json.loads(run("list", "--json", "--data", str(tmp_path), "--database", elsewhere)) == []
