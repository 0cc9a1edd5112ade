"""`kilonova bench serve` against a real server, in all its protocols."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from kilonova.cli.bench import app
from kilonova.core.errors import ConfigError, KilonovaError, ModelNotFound

SMALL = ["--concurrency", "1,2", "--requests", "2", "--input-tokens", "64", "--output-tokens", "8", "--warmup", "0"]


def bench(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["serve", *SMALL, *arguments], env={"COLUMNS": "200"})


def test_three_protocols_of_one_server(server: Any, tmp_path: Path) -> None:
    urls = ["--url", server.url] * 3
    protocols = [part for name in ("openai", "openai-chat", "bedrock") for part in ("--protocol", name)]

    result = bench(*urls, *protocols, "--model", "tiny", "--repeats", "2", "--json", "--output", str(tmp_path))

    assert result.exception is None, result.exception
    report = json.loads(result.stdout)
    assert [one["protocol"] for one in report["targets"]] == ["openai", "openai-chat", "bedrock"]
    assert len({one["name"] for one in report["targets"]}) == 3
    for one in report["targets"]:
        assert one["counted_by"] == "usage"
        for level in one["levels"]:
            assert (level["requests"], level["refused"]) == (4, 0)
            assert level["input_tokens"] == [64, 64]
            assert level["output_tokens"][1] == 8
            if one["protocol"] != "bedrock":
                # ConverseStream has no way to go on after the model's own end.
                assert one["settings"]["ignore_eos"] is True
                assert level["output_tokens"][0] == 8
            assert 0 < level["first_token_ms"]["p50"] <= level["total_ms"]["p50"] <= level["total_ms"]["p99"]
    assert {one["first"] for one in report["comparisons"]} == {report["targets"][0]["name"]}
    assert json.loads((tmp_path / "report.json").read_text()) == report
    assert (tmp_path / "report.html").exists()


def test_unknown_models_are_named(server: Any) -> None:
    result = bench("--url", server.url, "--model", "tyni")
    assert isinstance(result.exception, ModelNotFound)
    assert "'tiny'" in str(result.exception)

    result = bench("--url", server.url, "--model", "tyni", "--protocol", "bedrock")
    assert isinstance(result.exception, KilonovaError)
    assert "invalid" in str(result.exception)

    # There is more than one, so one must be chosen.
    result = bench("--url", server.url)
    assert isinstance(result.exception, ConfigError)
    assert "tiny" in str(result.exception)


def test_a_prompt_beyond_the_context_is_refused_in_the_servers_words(server: Any) -> None:
    result = bench("--url", server.url, "--model", "tiny", "--input-tokens", "5000")
    assert isinstance(result.exception, KilonovaError)
    assert "the context holds 512 tokens" in str(result.exception)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--url", "http://a", "--model", "a", "--model", "b"], "--model"),
        (["--url", "http://a", "--url", "http://b", "--url", "http://c", "--protocol", "openai"] * 2, "--protocol"),
        (["--concurrency", "1,x"], "--concurrency"),
        (["--url", "http://a", "--protocol", "bedrock"], "--model"),
        ([], "--model"),
    ],
)
def test_wrong_options_are_named(arguments: list[str], named: str) -> None:
    result = bench(*arguments)
    assert isinstance(result.exception, ConfigError)
    assert named in str(result.exception)
