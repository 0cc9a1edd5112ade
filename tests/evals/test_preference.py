"""Preferences of models: against transformers' scores, and by hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from kilonova.core.errors import DataError
from kilonova.evals import preference
from kilonova.evals.preference import is_reward_model, measure, pair_log_probs, read_pairs, rewards, win_rate
from kilonova.models.checkpoint import load_decoder
from kilonova.models.reward import RewardModel, load_reward_model, save_reward_model
from kilonova.text.tokenizer import Tokenizer

ROWS = [
    ("say fox", "the quick fox", "a dog", "easy"),
    ("say dog", "dog", "the quick brown fox jumps over the lazy dog", "easy"),
    ("count to three", "1 2 3", "3 2 1", "hard"),
    ("name a judge", "wizards", "judge", "hard"),
]


@pytest.fixture
def pairs_file(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.jsonl"
    rows = [
        {
            "prompt": [{"role": "user", "content": prompt}],
            "chosen": [{"role": "assistant", "content": chosen}],
            "rejected": [{"role": "assistant", "content": rejected}],
            "kind": kind,
        }
        for prompt, chosen, rejected, kind in (*ROWS, ("same", "fox", "fox", "hard"), ("empty", "", "fox", "hard"))
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def reward_directory(tiny_micro_directory: Path, tmp_path: Path) -> Path:
    model = RewardModel.from_decoder(load_decoder(tiny_micro_directory), torch.Generator().manual_seed(1))
    directory = tmp_path / "reward"
    save_reward_model(model, directory)
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(tiny_micro_directory / file, directory / file)
    return directory


def by_name(report) -> dict[tuple[str, str], preference.PreferenceScore]:
    return {(score.metric, score.kind): score for score in report.scores}


def test_log_probs_are_those_of_transformers(tiny_micro_directory, pairs_file) -> None:
    from transformers import AutoModelForCausalLM

    pairs, left_out = read_pairs(pairs_file, Tokenizer.from_directory(tiny_micro_directory), 512)
    assert (len(pairs), left_out) == (4, 1 + 1)
    sums, counts = pair_log_probs(load_decoder(tiny_micro_directory), pairs)
    theirs = AutoModelForCausalLM.from_pretrained(tiny_micro_directory, dtype=torch.float32)
    for row, pair in enumerate(pairs):
        for side, tokens in enumerate((pair.chosen, pair.rejected)):
            with torch.no_grad():
                table = theirs(torch.tensor([tokens])).logits[0].log_softmax(-1)
            at = range(pair.prompt_length, len(tokens))
            expected = sum(float(table[position - 1, tokens[position]]) for position in at)
            assert float(sums[row, side]) == pytest.approx(expected, rel=1e-4)
            assert float(counts[row, side]) == len(at)


def test_a_language_model_is_measured_by_kind(tiny_micro_directory, pairs_file) -> None:
    report = measure(tiny_micro_directory, pairs_file)
    pairs, _ = read_pairs(pairs_file, Tokenizer.from_directory(tiny_micro_directory), 512)
    sums, counts = pair_log_probs(load_decoder(tiny_micro_directory), pairs)
    scores = by_name(report)
    wins = (sums[:, 0] > sums[:, 1]).float()
    assert scores["logps_accuracy", "all"].value == pytest.approx(float(wins.mean()))
    assert scores["logps_accuracy", "easy"].value == pytest.approx(float(wins[:2].mean()))
    means = sums / counts
    assert scores["mean_logps_accuracy", "all"].value == pytest.approx(
        float((means[:, 0] > means[:, 1]).float().mean())
    )
    assert scores["longer_is_better", "easy"].value == 0.5
    assert report.left_out == 2
    assert all(score.low <= score.value <= score.high for score in report.scores)
    assert json.loads(report.to_json())["scores"][0]["count"] == 4


def test_a_reward_model_is_recognised_and_measured(reward_directory, tiny_micro_directory, pairs_file) -> None:
    assert is_reward_model(reward_directory)
    assert not is_reward_model(tiny_micro_directory)
    model = load_reward_model(reward_directory)
    pairs, _ = read_pairs(pairs_file, Tokenizer.from_directory(reward_directory), 512)
    expected = []
    for pair in pairs:
        with torch.no_grad():
            chosen, rejected = (float(model(torch.tensor([ids]))[0, -1]) for ids in (pair.chosen, pair.rejected))
        expected.append(chosen > rejected)
    found = by_name(measure(reward_directory, pairs_file))["reward_accuracy", "all"]
    assert (found.value, found.count) == (pytest.approx(sum(expected) / 4), 4)
    assert by_name(measure(reward_directory, pairs_file, limit=2))["reward_accuracy", "all"].count == 2


def test_win_rate_of_known_answers(reward_directory, tiny_micro_directory, pairs_file, monkeypatch) -> None:
    given = {"first": ["fox", "dog", "same", "cat"], "second": ["dog", "fox", "same", None]}

    class Answers:
        def __init__(self, directory, max_tokens) -> None:
            self.directory = directory

        def __call__(self, prompts):
            return given[self.directory]

        def close(self) -> None:
            pass

    monkeypatch.setattr(preference, "GreedyAnswers", Answers)
    scores = by_name(win_rate("first", "second", reward_directory, pairs_file))
    tokenizer, model = Tokenizer.from_directory(reward_directory), load_reward_model(reward_directory)
    wins = []
    for (prompt, *_), *answers in zip(ROWS, given["first"], given["second"], strict=True):
        documents = []
        for answer in answers:
            messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer or ""}]
            tokens = tokenizer.encode_template_messages(messages, add_generation_prompt=False)
            documents.append(tokens[: max(at for at, t in enumerate(tokens) if t in tokenizer.stop_token_ids) + 1])
        first, second = (float(rewards(model, [ids])[0]) for ids in documents)
        wins.append(0.5 if first == second else float(first > second))
    assert wins[2] == 0.5
    assert scores["win_rate", "all"].value == pytest.approx(sum(wins) / 4)
    assert scores["characters", "all"].value == pytest.approx((3 + 3 + 4 + 3) / 4)
    assert scores["characters_against", "all"].value == pytest.approx((3 + 3 + 4 + 0) / 4)


def test_a_model_does_not_win_against_itself(reward_directory, tiny_micro_directory, pairs_file) -> None:
    report = win_rate(tiny_micro_directory, tiny_micro_directory, reward_directory, pairs_file, max_tokens=8)
    scores = by_name(report)
    assert scores["win_rate", "all"].value == scores["win_rate", "all"].low == 0.5
    assert scores["reward_difference", "all"].value == 0
    assert scores["characters", "all"].value == scores["characters_against", "all"].value


def test_a_file_without_pairs_is_refused(tiny_micro_directory, tmp_path) -> None:
    (tmp_path / "none.jsonl").write_text("")
    with pytest.raises(DataError, match="no pair to measure"):
        measure(tiny_micro_directory, tmp_path / "none.jsonl")
    (tmp_path / "bad.jsonl").write_text('{"chosen": "text"}\n')
    with pytest.raises(DataError, match=r"bad\.jsonl:1: 'chosen' is not a list"):
        measure(tiny_micro_directory, tmp_path / "bad.jsonl")
