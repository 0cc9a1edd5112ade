import json
from collections import Counter
from pathlib import Path

import pytest

from kilonova.core.errors import DataError
from kilonova.data.prompts import read_prompts
from kilonova.data.sources import Source
from kilonova.data.verifiable import TASKS, verifiable_rows, write_verifiable
from kilonova.data.verifiers import make_verifier
from kilonova.text.tokenizer import Tokenizer


def right_answer(question: str, verifier: dict) -> str:
    """An answer worked out from the question, or what the question asks to be written."""
    match verifier["name"]:
        case "number" if "\n" in question:
            return str(len(question.split("\n")[1].split(", ")))
        case "number":
            sum_or_difference = question.removeprefix("What is ").removeprefix("Calculate ").rstrip("?. =")
            first, sign, second = sum_or_difference.split()
            return str(int(first) + (1 if sign == "+" else -1) * int(second))
        case "sorted_list":
            items = question.split("\n")[1].split(", ")
            if not items[0].isdigit():
                return ", ".join(sorted(items))
            return ", ".join(map(str, sorted(map(int, items), reverse="descending" in question)))
        case "exact":
            return question.split(": ", 1)[1] if ": " in question else question.split(" and nothing else ", 1)[1]
        case "word_count":
            return " ".join(["word"] * verifier["most"])
        case "mean":
            name, age = question.split(": ")[1].split(" is ")
            return json.dumps({"name": name, "age": int(age.split()[0])})
    raise AssertionError(verifier)


def test_every_task_has_a_right_answer_and_refuses_a_wrong_one():
    for row in verifiable_rows(300, seed=1):
        verifier = make_verifier(row["verifier"])
        answer = right_answer(row["prompt"][0]["content"], row["verifier"])
        assert verifier(answer) == 1, row
        assert verifier(f"{answer}, 77 and a few other words") < 1, row


def test_rows_are_a_function_of_the_seed(tmp_path: Path):
    first = write_verifiable(tmp_path / "a.jsonl", 30, seed=3)
    write_verifiable(tmp_path / "b.jsonl", 30, seed=3)
    write_verifiable(tmp_path / "c.jsonl", 30, seed=4)
    assert first == dict.fromkeys(TASKS, 5)
    assert (tmp_path / "a.jsonl").read_text() == (tmp_path / "b.jsonl").read_text()
    assert (tmp_path / "a.jsonl").read_text() != (tmp_path / "c.jsonl").read_text()
    assert Counter(row["task"] for row in verifiable_rows(4, 0, ("sorting",))) == {"sorting": 4}
    with pytest.raises(DataError, match="did you mean 'sorting'"):
        list(verifiable_rows(1, 0, ("sortin",)))


def test_prompts_of_every_format(tmp_path: Path, tiny_tokenizer_directory: Path):
    tokenizer = Tokenizer.from_directory(tiny_tokenizer_directory)
    user = {"role": "user", "content": "quick fox"}
    rows = {
        "verifiable": {"prompt": [user], "verifier": {"name": "number", "value": 2}},
        "chat": {"messages": [user, {"role": "assistant", "content": "brown"}]},
        "preference": {
            "prompt": [user],
            "chosen": [{"role": "assistant", "content": "a"}],
            "rejected": [{"role": "assistant", "content": "b"}],
        },
    }
    for format, row in rows.items():
        (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
        source = Source(name="rows", path="rows.jsonl", format=format)  # type: ignore[arg-type]
        (prompt,) = read_prompts([source], tmp_path, tokenizer, 64, seed=0).prompts
        assert list(prompt.token_ids) == tokenizer.encode_template_messages([user])
        assert (prompt.verifier is not None) == (format == "verifiable")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": [{"role": "user", "content": "x"}]}, "rows.jsonl:1: the row has no field 'verifier'"),
        ({"prompt": "x", "verifier": {"name": "number", "value": 1}}, "rows.jsonl:1: the prompt must be a list"),
        ({"prompt": [{"role": "user", "content": "x"}], "verifier": {"name": "nil"}}, "rows.jsonl:1: verifier"),
        ({"prompt": [{"role": "user", "content": "x" * 500}], "verifier": {"name": "number", "value": 1}}, "at most"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, tiny_tokenizer_directory: Path, row, message):
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    source = Source(name="rows", path="rows.jsonl", format="verifiable")
    with pytest.raises(DataError, match=message):
        read_prompts([source], tmp_path, Tokenizer.from_directory(tiny_tokenizer_directory), 64, seed=0)
