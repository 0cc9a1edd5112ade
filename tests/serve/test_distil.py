"""`kilonova data distil` against a running server, in both of its protocols."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from kilonova.cli.data import app
from kilonova.data.distil import TeacherUnavailable
from kilonova.data.sources import Source
from kilonova.data.tokens import tokenize_source, tokenizer_fingerprint
from kilonova.text.tokenizer import Tokenizer


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"question {number}"}) + "\n" for number in range(3)))
    return path


@pytest.mark.parametrize("protocol", ["openai", "bedrock"])
def test_a_served_teacher_answers(
    server: Any,
    tiny_tokenizer_directory: Path,
    prompts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    protocol: str,
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "local")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    endpoint = f"{server.url}/v1" if protocol == "openai" else server.url
    output = tmp_path / "sft.jsonl"
    # A random model rarely ends by itself: what it writes is sampled until each prompt has an answer that does.
    arguments = ["distil", str(prompts), "--endpoint", endpoint, "--protocol", protocol, "--model", "tiny", "--json"]
    arguments += ["--output", str(output), "--max-tokens", "300", "--temperature", "1.0", "--concurrency", "3"]

    present = 0
    for _ in range(20):
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code in (0, 1), result.exception
        report = json.loads(result.stdout)
        assert report["refused"] == 0, report
        assert report["present"] == present
        assert report["written"] + report["present"] + report["truncated"] == 3
        assert result.exit_code == (1 if report["truncated"] else 0)
        present += report["written"]
        if present == 3:
            break
    assert present > 0

    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert len(rows) == present
    assert all(row["messages"][1]["role"] == "assistant" and row["teacher"] == "tiny" for row in rows)
    tokenizer = Tokenizer.from_directory(tiny_tokenizer_directory)
    source = Source(name="sft", path="sft.jsonl", format="chat")
    fingerprint = tokenizer_fingerprint(tiny_tokenizer_directory)
    tokens = tokenize_source(source, tmp_path, tokenizer, fingerprint, tmp_path / "cache")
    assert len(tokens.offsets) - 1 == present


def test_a_model_that_is_not_there_ends_the_run(server: Any, prompts: Path, tmp_path: Path) -> None:
    arguments = ["distil", str(prompts), "--endpoint", f"{server.url}/v1", "--model", "absent"]
    result = CliRunner().invoke(app, [*arguments, "--output", str(tmp_path / "out.jsonl")])
    assert isinstance(result.exception, TeacherUnavailable)
    assert "absent" in str(result.exception)
