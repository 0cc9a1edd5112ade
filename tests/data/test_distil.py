"""Answers asked of a teacher's service: what is written, what is tried again, what is left out."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from kilonova.core.errors import DataError
from kilonova.data.distil import Answer, Messages, PromptRefused, TeacherUnavailable, distil


def write_prompts(path: Path, *rows: dict) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def echo(messages: Messages) -> Answer:
    return Answer(messages[-1]["content"].upper(), True)


def test_prompts_become_conversations(tmp_path: Path) -> None:
    turns = [
        {"role": "system", "content": "shout"},
        {"role": "user", "content": "ab"},
        {"role": "assistant", "content": "AB"},
        {"role": "user", "content": "cd"},
    ]
    old = {"role": "assistant", "content": "an older answer"}
    prompts = write_prompts(tmp_path / "prompts.jsonl", {"prompt": "hé"}, {"messages": [*turns, old]})
    report = distil(prompts, tmp_path / "out.jsonl", echo, name="echo")
    assert (report.written, report.present, report.truncated, report.refused) == (2, 0, 0, 0)
    found = {row["messages"][-1]["content"]: row for row in rows_of(tmp_path / "out.jsonl")}
    assert found["HÉ"]["messages"][0] == {"role": "user", "content": "hé"}
    assert found["CD"]["messages"] == [*turns, {"role": "assistant", "content": "CD"}]
    assert {row["teacher"] for row in found.values()} == {"echo"}


def test_answers_that_are_there_are_not_asked_again(tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "prompts.jsonl", *({"prompt": f"p{n}"} for n in range(10)))
    output = tmp_path / "out.jsonl"
    asked: list[str] = []

    def teacher(messages: Messages) -> Answer:
        asked.append(messages[-1]["content"])
        return echo(messages)

    assert distil(prompts, output, teacher, name="t", limit=4).written == 4
    with output.open("a") as file:
        file.write('{"messages": [{"role": "us')
    asked.clear()
    report = distil(prompts, output, teacher, name="t")
    assert (report.written, report.present) == (6, 4)
    assert sorted(asked) == [f"p{n}" for n in range(4, 10)]
    assert sorted(row["messages"][0]["content"] for row in rows_of(output)) == [f"p{n}" for n in range(10)]


def test_prompts_are_asked_side_by_side(tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "prompts.jsonl", *({"prompt": f"p{n}"} for n in range(8)))
    together = threading.Barrier(4, timeout=20)

    def teacher(messages: Messages) -> Answer:
        together.wait()
        return echo(messages)

    assert distil(prompts, tmp_path / "out.jsonl", teacher, name="t", concurrency=4).written == 8


def test_answers_cut_off_and_prompts_refused_are_left_out(tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "prompts.jsonl", {"prompt": "ok"}, {"prompt": "long"}, {"prompt": "bad"})

    def teacher(messages: Messages) -> Answer:
        if messages[-1]["content"] == "bad":
            raise PromptRefused("not this one")
        return Answer("x", messages[-1]["content"] == "ok")

    report = distil(prompts, tmp_path / "out.jsonl", teacher, name="t")
    assert (report.written, report.truncated, report.refused, report.last_refusal) == (1, 1, 1, "not this one")
    assert [row["messages"][0]["content"] for row in rows_of(tmp_path / "out.jsonl")] == ["ok"]


def test_a_teacher_that_refuses_all_ends_the_run(tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "prompts.jsonl", *({"prompt": f"p{n}"} for n in range(100)))
    asked: list[Messages] = []

    def teacher(messages: Messages) -> Answer:
        asked.append(messages)
        raise PromptRefused("connection refused")

    with pytest.raises(TeacherUnavailable, match="answered none of 4 prompts: connection refused"):
        distil(prompts, tmp_path / "out.jsonl", teacher, name="t", concurrency=4)
    assert len(asked) < 20


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "no prompt"}, "needs a prompt"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "needs a prompt"),
        ({"messages": [{"role": "system", "content": "x"}]}, "no turn of the user"),
        ({"prompt": "x", "tools": [{}]}, "has tools"),
    ],
)
def test_rows_that_cannot_be_asked_are_named(tmp_path: Path, row: dict, message: str) -> None:
    prompts = write_prompts(tmp_path / "prompts.jsonl", row)
    with pytest.raises(DataError, match=message):
        distil(prompts, tmp_path / "out.jsonl", echo, name="t")
