"""Every example runs against a real server with the shipped Micro and does what it says."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import kilonova

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
MICRO = Path(kilonova.__file__).parent / "weights" / "micro"


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if not (MICRO / "config.json").is_file():
        pytest.skip("the shipped weights of Micro are not there")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data = tmp_path_factory.mktemp("data")
    command = [sys.executable, "-m", "kilonova", "serve", "--port", str(port), "--data", str(data)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            assert any("Ctrl-C" in line for line in server.stdout), "the server stopped before it was ready"
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()


@pytest.fixture(scope="module")
def outputs(endpoint: str) -> dict[str, str]:
    """What each example printed, after checking that it ended well."""
    printed = {}
    for path in EXAMPLES:
        result = subprocess.run(
            [sys.executable, str(path)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env={**os.environ, "KILONOVA_ENDPOINT": endpoint},
        )
        assert result.returncode == 0, f"{path.name}: {result.stderr}"
        printed[path.stem] = result.stdout
    return printed


def test_there_are_nine_and_all_are_listed() -> None:
    readme = (ROOT / "examples" / "README.md").read_text()

    assert len(EXAMPLES) == 9
    assert all(f"({path.name})" in readme for path in EXAMPLES)


def test_low_latency_text(outputs: dict[str, str]) -> None:
    answer, _, figures = outputs["low_latency_text"].partition("\n\nfirst text after ")

    assert answer.strip()
    first, tokens, total = map(int, re.match(r"(\d+) ms, (\d+) tokens in (\d+) ms", figures).groups())
    assert first > 0
    assert 0 < tokens <= 60
    assert total > 0


def test_cost_is_usage_times_price(outputs: dict[str, str]) -> None:
    figures = dict(
        re.findall(r"^(input tokens|output tokens|cost): +([\d.]+)", outputs["cost_of_a_call"], re.MULTILINE)
    )

    expected = int(figures["input tokens"]) * 0.000035 / 1000 + int(figures["output tokens"]) * 0.00014 / 1000
    assert int(figures["input tokens"]) > 5
    assert int(figures["output tokens"]) > 0
    assert float(figures["cost"]) == pytest.approx(expected, abs=1e-9)


def test_second_request_carries_the_first_turns(outputs: dict[str, str]) -> None:
    pattern = r"sent 1 turn\(s\), (\d+) tokens: (.*)\nanswer: (.*)\n\nsent 3 turn\(s\), (\d+) tokens: (.*)\nanswer: "
    match = re.match(pattern, outputs["conversation_memory"], re.DOTALL)
    first_tokens, first_sent, answer, second_tokens, second_sent = match.groups()

    assert second_sent.startswith(f"{first_sent} | assistant: {answer} | user: ")
    assert int(second_tokens) > int(first_tokens)


def test_streaming_arrives_in_pieces(outputs: dict[str, str]) -> None:
    text, _, summary = outputs["streaming"].rpartition("\n\nstopped: ")
    reason, chunks = re.match(r"(\w+), after (\d+) chunks", summary).groups()

    assert text.strip()
    assert reason in {"end_turn", "max_tokens"}
    assert int(chunks) > 1


def test_languages(outputs: dict[str, str]) -> None:
    answers = dict(re.findall(r"^(German|French|Spanish|Italian|Japanese): (.+)$", outputs["languages"], re.MULTILINE))

    assert len(answers) == 5
    assert len(set(answers.values())) > 1


def test_system_prompt_changes_the_answer(outputs: dict[str, str]) -> None:
    _, first, second = outputs["system_prompt"].split("system: ")

    assert "\nanswer: " in first
    assert first.partition("\nanswer: ")[2] != second.partition("\nanswer: ")[2]


def test_classification(outputs: dict[str, str]) -> None:
    labels = re.findall(r" -> (.+)$", outputs["classification_and_sentiment"], re.MULTILINE)

    assert len(labels) == 5
    assert set(labels[:2]) <= {"positive", "negative"}


def test_summary_is_shorter_than_the_text(outputs: dict[str, str]) -> None:
    before, after = map(int, re.search(r"(\d+) words in, (\d+) words out", outputs["summarisation"]).groups())

    assert 0 < after < before


def test_long_conversation_keeps_its_beginning(outputs: dict[str, str]) -> None:
    counts = re.findall(r"^sent (\d+) turn\(s\), dropped (\d+) \((\d+) tokens\)$", outputs["long_conversation"], re.M)
    sent, dropped, tokens = zip(*(map(int, each) for each in counts), strict=True)

    assert dropped[:2] == (0, 0)
    assert sum(dropped) > 0
    assert all((a > 0) == (b > 0) for a, b in zip(dropped, tokens, strict=True))
    assert all(after == before + 2 - gone for before, after, gone in zip(sent, sent[1:], dropped[1:], strict=False))
    assert all(count % 2 == 1 and count >= 3 for count in sent[1:])
