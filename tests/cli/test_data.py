"""`kilonova data instruct`: writes conversations and says what is in them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kilonova.cli.data import app
from kilonova.core.errors import ConfigError, DataError


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


SENTENCE = "The harbour was quiet when the first boats came in with the morning tide and the crews have rested."


def write_rows(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def prose(number: int) -> dict:
    return {"text": "\n".join(f"{SENTENCE[:-1]} on day n{number}x{line}." for line in range(8))}


def test_clean_writes_files_and_a_report(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [prose(0), prose(0), prose(1), {"text": "short"}])
    settings = tmp_path / "clean.yaml"
    settings.write_text("quality: {max_top_ngram: [], max_duplicate_ngrams: []}\nnear_duplicates: {similarity: 1.0}\n")
    report = tmp_path / "report.json"
    arguments = ["clean", str(path), "--output", str(tmp_path / "clean"), "--config", str(settings)]

    result = CliRunner().invoke(app, [*arguments, "--report", str(report), "--json"], catch_exceptions=False)

    found = json.loads(result.stdout)
    assert found == json.loads(report.read_text())
    assert {reason: entry["documents"] for reason, entry in found["dropped"].items()} == {
        "exact duplicate": 1,
        "quality: min_words": 1,
    }
    assert (tmp_path / "clean" / "a.jsonl").read_text().splitlines() == [json.dumps(prose(0)), json.dumps(prose(1))]


def test_clean_shows_tables(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"body": "short"}, {"body": "short"}])
    evaluation = write_rows(tmp_path / "eval.jsonl", [{"question": SENTENCE}])
    arguments = ["clean", str(path), "--template", "{body}", "--against", str(evaluation), "--language", "en"]

    result = CliRunner().invoke(
        app, [*arguments, "--output", str(tmp_path / "clean")], env={"COLUMNS": "160"}, catch_exceptions=False
    )

    for text in ("0 of 2 documents kept", "exact duplicate", "a.jsonl:2", "eval.jsonl", "contaminated"):
        assert text in result.stdout


def test_clean_takes_conversations(tmp_path: Path) -> None:
    row = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": ""}]}
    path = write_rows(tmp_path / "a.jsonl", [row])
    arguments = ["clean", str(path), "--format", "chat", "--output", str(tmp_path / "clean"), "--json"]

    result = CliRunner().invoke(app, arguments, catch_exceptions=False)

    assert list(json.loads(result.stdout)["dropped"]) == ["row: empty answer"]


def test_unknown_threshold_names_the_nearest(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [prose(0)])
    settings = tmp_path / "clean.yaml"
    settings.write_text("quality: {min_word: 3}\n")

    result = CliRunner().invoke(
        app, ["clean", str(path), "--output", str(tmp_path / "clean"), "--config", str(settings)]
    )

    assert isinstance(result.exception, ConfigError)
    assert "min_words" in str(result.exception)


def test_stats_of_files(tmp_path: Path, tiny_tokenizer_directory: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [prose(number) for number in range(3)])
    output = tmp_path / "statistics"
    arguments = ["stats", str(path), "--tokenizer", str(tiny_tokenizer_directory), "--output", str(output)]

    result = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False)

    found = json.loads(result.stdout)
    assert found == json.loads((output / "statistics.json").read_text())
    assert found["sources"][0]["documents"] == 3
    assert found["sources"][0]["tokens"] > 100
    assert (output / "statistics.png").read_bytes().startswith(b"\x89PNG")


def test_stats_of_a_recipe_follow_its_overrides(tmp_path: Path, tiny_tokenizer_directory: Path) -> None:
    write_rows(tmp_path / "a.jsonl", [prose(number) for number in range(6)])
    write_rows(tmp_path / "b.jsonl", [prose(9)])
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "objective: pretrain\noutput: run\nsteps: 1\nbatch_size: 1\nmicro_batch_size: 1\noptimizer: {lr: 0.1}\n"
        f"model: {{tokenizer: {tiny_tokenizer_directory}, config: {{}}}}\n"
        f"data:\n  root: {tmp_path}\n  cache: {tmp_path / 'cache'}\n  sequence_length: 16\n  sources:\n"
        "  - {name: a, path: a.jsonl}\n  - {name: b, path: b.jsonl}\n"
    )

    def shares(*overrides: str) -> list[float]:
        arguments = ["stats", "--recipe", str(recipe), *overrides, "--json"]
        found = json.loads(CliRunner().invoke(app, arguments, catch_exceptions=False).stdout)
        assert found["packing"]["cut"] == 7
        return [source["share"] for source in found["sources"]]

    assert shares()[0] == pytest.approx(6 / 7, abs=0.01)
    assert shares("data.sources.1.weight=6")[0] == pytest.approx(1 / 2, abs=0.01)
    assert shares("data.temperature=2")[0] == pytest.approx(6**0.5 / (1 + 6**0.5), abs=0.01)


def test_stats_say_what_to_name(tmp_path: Path) -> None:
    for arguments, message in ((["--json"], "--recipe"), (["data.root=x"], "key=value go with --recipe")):
        result = CliRunner().invoke(app, ["stats", *arguments])
        assert isinstance(result.exception, ConfigError)
        assert message in str(result.exception)


def test_verifiable_writes_tasks_with_verifiers(tmp_path: Path) -> None:
    output = tmp_path / "tasks.jsonl"
    arguments = ["verifiable", "--output", str(output), "--count", "9", "--task", "sorting", "--task", "counting"]

    result = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False)

    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert json.loads(result.stdout) == {"rows": 9, "tasks": {"sorting": 5, "counting": 4}}
    assert {row["verifier"]["name"] for row in rows} == {"sorted_list", "number"}
    assert all(row["prompt"][-1]["role"] == "user" for row in rows)
