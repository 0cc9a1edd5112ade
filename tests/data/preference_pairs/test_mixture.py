"""The whole build: deterministic, balanced, held out by prompt, and reserved sets kept out of training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import zstandard

from kilonova.core.errors import DataError
from kilonova.data.preference_pairs import build
from kilonova.data.preference_pairs.mixture import KINDS, SHARES, length_table
from kilonova.data.preference_pairs.pair import make_pair


def write_rows(root: Path, name: str, rows: list[dict[str, Any]]) -> None:
    path = root / f"{name}.jsonl.zst"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(zstandard.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def human_pack(pack: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small data pack with human choices beside it."""
    root = tmp_path_factory.mktemp("human-pack")
    for folder in ("sft", "text"):
        (root / folder).symlink_to(pack / folder)
    for name in ("lf_dpo_en_demo", "lf_dpo_zh_demo"):
        turns = [{"from": "system", "value": "Be kind."}, {"from": "human", "value": f"Say hello to {name}."}]
        sides = {"chosen": {"from": "gpt", "value": "Hello!"}, "rejected": {"from": "gpt", "value": "No."}}
        write_rows(root, f"pref/{name}", [{"conversations": turns, **sides}])
    start = "\n\nHuman: How do I do harm?\n\nAssistant:"
    write_rows(
        root,
        "pref/hh_rlhf_harmless_base_test",
        [
            {"chosen": f"{start} Please do not.", "rejected": f"{start} Like this."},
            {"chosen": start, "rejected": start},
        ],
    )

    def rated(text: str, rating: float) -> dict[str, Any]:
        return {"response": text, "overall": {"overall-rating": rating}}

    ratings = {"bart": rated("bad", 20.0), "bart-dpr": rated("poor", 23.0), "human": rated("good", 90.0)}
    write_rows(root, "pref/squality_human_ratings", [{"passage-id": "7", "questions": {"0": ratings}}])
    question = {"question_text": "What is the plot?"}
    write_rows(root, "eval/squality_test", [{"metadata": {"passage_id": "7"}, "questions": [question]}])
    return root


@pytest.fixture(scope="module")
def built(human_pack: Path, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("built")
    report = build(
        human_pack,
        folder / "train.jsonl",
        held_out_path=folder / "held_out.jsonl",
        human_path=folder / "human.jsonl",
        count=1200,
    )
    return folder, report


def test_every_kind_is_there_in_its_share_and_balanced_by_length(built) -> None:
    folder, report = built
    assert set(report.by_kind) == {*SHARES, "human", "all"}
    assert report.pairs == len(rows_of(folder / "train.jsonl"))
    assert 1050 < report.pairs + report.held_out_pairs <= 1202
    both = rows_of(folder / "train.jsonl") + rows_of(folder / "held_out.jsonl")
    for kind, entry in length_table(both).items():
        if kind in SHARES:
            assert abs(entry["longer_is_better"] - 0.5) <= 0.5 / entry["pairs"] + 1e-9, kind
            assert entry["pairs"] <= round(1200 * SHARES[kind])


def test_rows_are_in_trl_s_format(built) -> None:
    from datasets import Dataset
    from trl.data_utils import is_conversational

    folder, _ = built
    rows = rows_of(folder / "train.jsonl")
    for row in rows:
        assert row["prompt"][-1]["role"] == "user"
        assert [message["role"] for message in row["chosen"] + row["rejected"]] == ["assistant", "assistant"]
        assert row["chosen"][0]["content"].strip()
        assert row["rejected"][0]["content"].strip()
        assert row["chosen"] != row["rejected"]
    assert is_conversational(Dataset.from_list(rows[:5])[0])


def test_equal_seeds_write_equal_bytes_and_other_seeds_do_not(built, human_pack, tmp_path) -> None:
    folder, _ = built
    build(human_pack, tmp_path / "again.jsonl", count=1200)
    build(human_pack, tmp_path / "other.jsonl", 1, count=1200)
    assert (tmp_path / "again.jsonl").read_bytes() == (folder / "train.jsonl").read_bytes()
    assert (tmp_path / "other.jsonl").read_bytes() != (folder / "train.jsonl").read_bytes()


def test_held_out_prompts_do_not_occur_in_training(built) -> None:
    folder, report = built

    def prompts(name: str) -> set[str]:
        return {next(m["content"] for m in row["prompt"] if m["role"] == "user") for row in rows_of(folder / name)}

    assert report.held_out_pairs > 20
    assert not prompts("train.jsonl") & prompts("held_out.jsonl")


def test_reserved_choices_are_for_evaluation_only(built) -> None:
    folder, _ = built
    human = rows_of(folder / "human.jsonl")
    assert [(row["kind"], row["chosen"][0]["content"], row["rejected"][0]["content"]) for row in human] == [
        ("harmlessness", "Please do not.", "Like this."),
        ("summary", "good", "bad"),
        ("summary", "good", "poor"),
    ]
    training = rows_of(folder / "train.jsonl") + rows_of(folder / "held_out.jsonl")
    assert {row["source"] for row in training if row["kind"] == "human"} == {"lf_dpo_en_demo", "lf_dpo_zh_demo"}
    assert not any(row["kind"] in ("harmlessness", "summary") for row in training)


def test_a_model_s_mistakes_are_set_against_right_answers(human_pack, tmp_path) -> None:
    asked: list[list[dict[str, Any]]] = []

    def answer(prompts):
        asked.extend(prompts)
        return [None if number % 5 == 0 else "forty-two wrong words" for number, _ in enumerate(prompts)]

    report = build(human_pack, tmp_path / "rows.jsonl", count=300, answer=answer, only=("model_answer",))
    rows = rows_of(tmp_path / "rows.jsonl")
    assert report.by_kind["model_answer"]["pairs"] == len(rows) > 0
    assert asked
    assert all(row["rejected"][0]["content"] == "forty-two wrong words" for row in rows)
    assert all(row["prompt"] in asked for row in rows)


def test_length_table_counts_ties_as_half() -> None:
    prompt = [{"role": "user", "content": "a"}]
    pairs = [
        make_pair("k", "s", prompt, *sides) for sides in (("long", "s"), ("s", "long"), ("ab", "cd"), ("abc", "d"))
    ]
    table = length_table(pairs)
    assert table["k"] == table["all"] == {"pairs": 4, "longer_is_better": 0.625, "chosen": 2.5, "rejected": 2.0}


def test_errors_are_named(tmp_path, pack) -> None:
    with pytest.raises(DataError, match="did you mean 'off_topic'"):
        build(pack, tmp_path / "o.jsonl", only=("off_topik",))
    with pytest.raises(DataError, match="model_answer needs a model"):
        build(pack, tmp_path / "o.jsonl", only=("model_answer",))
    with pytest.raises(DataError, match=r"lf_dpo_en_demo\.jsonl\.zst is missing"):
        build(pack, tmp_path / "o.jsonl", only=("human",))
    assert set(SHARES) < set(KINDS)
    assert not (tmp_path / "o.jsonl").exists()
