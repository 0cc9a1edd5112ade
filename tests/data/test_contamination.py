"""Evaluation passages planted in training texts."""

import json
from pathlib import Path

import pytest

from kilonova.core.errors import ConfigError
from kilonova.data.contamination import ContaminationConfig, EvaluationIndex


def words(name: str, count: int) -> str:
    return " ".join(f"{name}{number}" for number in range(count))


@pytest.fixture
def index(tmp_path: Path) -> EvaluationIndex:
    rows = [
        {"question": words("q", 40), "choices": [words("c", 20), "short one"]},
        {"question": words("long", 400)},
        {"question": "only five words in it"},
        {"turns": [{"text": words("small", 10)}]},
    ]
    path = tmp_path / "eval.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return EvaluationIndex([path], ContaminationConfig())


def part(name: str, start: int, end: int) -> str:
    return " ".join(f"{name}{number}" for number in range(start, end))


@pytest.mark.parametrize(
    ("planted", "row", "run", "contaminated"),
    [
        (part("q", 0, 40), 0, 40, True),
        (part("q", 5, 25), 0, 20, True),
        (part("q", 5, 24), 0, 19, False),
        (part("c", 0, 13), 0, 13, True),
        (part("c", 0, 12), 0, 12, False),
        (part("long", 100, 150), 1, 50, True),
        (part("long", 100, 149), 1, 49, False),
        (part("small", 0, 10), 3, 10, True),
        (part("small", 0, 9), 3, 9, False),
    ],
)
def test_runs_are_measured(index: EvaluationIndex, planted: str, row: int, run: int, contaminated: bool) -> None:
    found = index.overlaps(f"{words('before', 30)} {planted.upper()}, {words('after', 30)}")
    assert [(overlap.row, overlap.words, overlap.contaminated) for overlap in found] == [(row, run, contaminated)]
    (file,) = index.files.values()
    assert file.touched == {row}
    assert file.contaminated == ({row} if contaminated else set())


def test_runs_do_not_add_up(index: EvaluationIndex) -> None:
    text = f"{part('q', 0, 15)} between {part('q', 20, 38)}"
    assert [(overlap.words, overlap.contaminated) for overlap in index.overlaps(text)] == [(18, False)]


def test_neighbouring_passages_are_not_one_run(index: EvaluationIndex) -> None:
    text = f"{part('q', 30, 40)} {part('c', 0, 10)}"
    assert {overlap.words for overlap in index.overlaps(text)} == {10}


def test_rows_too_short_to_test_are_counted(index: EvaluationIndex) -> None:
    (file,) = index.files.values()
    assert (file.rows, file.tested) == (4, 3)
    assert index.overlaps("only five words in it") == []
    assert index.overlaps("") == []


def test_without_files_nothing_is_found() -> None:
    assert EvaluationIndex([], ContaminationConfig()).overlaps(words("q", 100)) == []


@pytest.mark.parametrize("setting", [{"ngram": 0}, {"min_share": 0.0}, {"min_words": 7}, {"long_run": 12}])
def test_settings_have_bounds(setting: dict) -> None:
    with pytest.raises(ConfigError, match="contamination"):
        ContaminationConfig(**setting)
