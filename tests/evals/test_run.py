"""The whole evaluation on a tiny random model, and its report."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from kilonova.core.errors import DataError, InvalidRequest
from kilonova.evals.run import evaluate, sample_answers
from kilonova.evals.tasks import TASKS, choose_tasks


@pytest.fixture(scope="module")
def report(tiny_micro_directory: Path, evaluation_pack: Path):
    return evaluate(tiny_micro_directory, evaluation_pack, limit=4, seed=3)


def test_every_task_is_scored_with_interval_and_baselines(report) -> None:
    assert {score.task for score in report.scores} == {task.name for task in TASKS}
    for score in report.scores:
        assert score.low <= score.value <= score.high
        assert score.baselines
        assert score.count > 0
        assert score.licence


def test_baselines_are_what_they_say(report) -> None:
    by_task = {score.task: score for score in report.scores}
    assert by_task["sst2"].baselines["random"] == 0.5
    assert by_task["trec"].baselines["random"] == pytest.approx(1 / 6, abs=1e-4)
    assert by_task["banking77"].baselines["random"] == 0.25
    assert by_task["translation-deu-eng"].baselines["copy of the source"] > 0
    assert 0 < by_task["books"].baselines["zstd -19"] < 8
    assert by_task["squality"].parts == {"cut_to_context": 1.0}


def test_equal_seeds_give_equal_scores(report, tiny_micro_directory: Path, evaluation_pack: Path) -> None:
    again = evaluate(tiny_micro_directory, evaluation_pack, ["classification", "books"], limit=4, seed=3)
    wanted = {score.task for score in again.scores}
    assert again.scores == [score for score in report.scores if score.task in wanted]


def test_a_shorter_context_is_used_and_recorded(tiny_micro_directory: Path, evaluation_pack: Path) -> None:
    short = evaluate(tiny_micro_directory, evaluation_pack, ["books", "dialogsum"], limit=2, context_length=160)
    assert short.context_length == 160
    assert [score.parts["cut_to_context"] for score in short.scores if score.task == "dialogsum"] == [1.0] * 3


def test_unknown_tasks_and_missing_files_are_named(tiny_micro_directory: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="did you mean 'sst2'"):
        evaluate(tiny_micro_directory, tmp_path, ["sst3"])
    with pytest.raises(InvalidRequest, match="at least 1"):
        evaluate(tiny_micro_directory, tmp_path, ["sst2"], limit=0)
    with pytest.raises(DataError, match=r"sst2_dev\.jsonl\.zst"):
        evaluate(tiny_micro_directory, tmp_path, ["sst2"])
    with pytest.raises(DataError, match="not a directory"):
        evaluate(tiny_micro_directory, tmp_path / "absent", ["sst2"])


def test_groups_and_names_choose_tasks() -> None:
    assert [task.name for task in choose_tasks(["sst2", "trec"])] == ["sst2", "trec"]
    assert len(choose_tasks(["translation"])) == 20
    assert len(choose_tasks()) == len(TASKS) == len({task.name for task in TASKS})


def test_json_output_is_one_object_and_nothing_else(tiny_micro_directory: Path, evaluation_pack: Path) -> None:
    command = [sys.executable, "-c", "from kilonova.cli.main import main; main()", "eval", str(tiny_micro_directory)]
    options = [
        "--data",
        str(evaluation_pack),
        "--task",
        "trec",
        "--task",
        "translation-deu-eng",
        "--limit",
        "3",
        "--json",
    ]
    result = subprocess.run([*command, *options], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("\n") == 1
    found = json.loads(result.stdout)
    assert [score["task"] for score in found["scores"]] == ["trec", "translation-deu-eng"]
    assert found["limit"] == 3


def test_samples_are_answers_to_their_prompts(tiny_micro_directory: Path) -> None:
    samples = sample_answers(tiny_micro_directory, ["Who are you?", "the fox"], max_tokens=5)
    assert [sample["prompt"] for sample in samples] == ["Who are you?", "the fox"]
    assert all(isinstance(sample["answer"], str) for sample in samples)
    assert samples == sample_answers(tiny_micro_directory, ["Who are you?", "the fox"], max_tokens=5)
