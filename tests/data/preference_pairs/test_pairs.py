"""Each kind of pair is right about what is right and what is wrong."""

from __future__ import annotations

import json
import re
from collections import Counter
from itertools import islice
from random import Random

import pytest

from kilonova.data.instruct.conversation import exchange
from kilonova.data.instruct.records import TrainingRecords
from kilonova.data.instruct.text_programs import TASKS
from kilonova.data.instruct.words import NUMBER_WORDS
from kilonova.data.preference_pairs.corruptions import (
    off_topic,
    repeated,
    shuffled_words,
    wrong_length,
    wrong_style,
)
from kilonova.data.preference_pairs.formats import wrong_formats
from kilonova.data.preference_pairs.human import hh_messages
from kilonova.data.preference_pairs.languages import wrong_languages
from kilonova.data.preference_pairs.pair import AnswerPool, lengths
from kilonova.data.preference_pairs.wrong_answers import is_verifiable, other_number, wrong_answer

ANSWER = "The quick brown fox jumps over the lazy dog, and then it sleeps."


def row(answer: str = ANSWER, task: str = "extract", prompt: str = "What happens?"):
    return exchange("made", task, prompt, answer)


def filled_pool() -> AnswerPool:
    pool = AnswerPool()
    for number in range(60):
        pool.add(row(f"Something else {number}. It has more to say.", "other"))
        pool.add(row(f"label{number % 3}", "label"))
    return pool


def texts(pair) -> tuple[str, str]:
    return pair["chosen"][0]["content"], pair["rejected"][0]["content"]


@pytest.mark.parametrize("number", ["7", "-12", "120", "3.50", "1000"])
def test_another_number_has_the_same_form(number) -> None:
    for seed in range(40):
        changed = other_number(number, Random(seed))
        assert float(changed) != float(number)
        assert [c.isdigit() for c in changed] == [c.isdigit() for c in number]
        assert len(changed) == len(number)
        assert not re.match(r"-?0\d", changed)


def test_wrong_answers_to_program_tasks_differ_from_the_right_ones() -> None:
    pool, rng = filled_pool(), Random(0)
    made: Counter[str] = Counter()
    for _ in range(40):
        for program in TASKS:
            task, prompt, answer = program(rng)
            example = row(answer, task, prompt)
            pool.add(example)
            wrong = wrong_answer(example, pool, rng)
            if wrong is not None:
                assert wrong != answer
                made[task] += 1
    assert {"count_words", "contains_word", "uppercase", "remove_word", "nth_word", "sentence_question"} <= set(made)


@pytest.mark.parametrize(
    ("answer", "task", "wrong"),
    [
        ("yes", "contains_word", {"no"}),
        ("label1", "label", {"label0", "label2"}),
        ("a, b", "sort_words", {"b, a"}),
    ],
)
def test_wrong_answers_of_small_sets(answer, task, wrong) -> None:
    found = {wrong_answer(row(answer, task), filled_pool(), Random(seed)) for seed in range(20)}
    assert found - {None} == wrong


def test_wrong_json_is_other_json_or_broken() -> None:
    tree = {"name": "Anna", "age": 41, "city": "Paris", "member": True}
    broken = changed = 0
    for seed in range(60):
        wrong = wrong_answer(row(json.dumps(tree), "person_json"), filled_pool(), Random(seed))
        try:
            parsed = json.loads(wrong)
        except ValueError:
            broken += 1
            continue
        assert sum(parsed[key] != tree[key] for key in tree) == 1
        changed += 1
    assert broken > 0 < changed


def test_open_tasks_have_no_wrong_answer() -> None:
    for task in ("story", "chat", "translation", "translation_en-de", "name_category"):
        assert not is_verifiable(row(task=task))
        assert wrong_answer(row(task=task), filled_pool(), Random(0)) is None
    assert is_verifiable(row(task="chat+count_words"))


def test_corruptions_do_what_they_say() -> None:
    pool = filled_pool()
    cut = longer = 0
    for seed in range(60):
        rng = Random(seed)
        assert sorted(shuffled_words(row(), pool, rng).split()) == sorted(ANSWER.split())
        looped = repeated(row(), pool, rng)
        most_common = Counter(looped.split()).most_common(1)[0][1]
        assert most_common >= 2
        assert set(looped.split()) <= set(ANSWER.split())
        assert "Something else" in off_topic(row(), pool, rng) or "label" in off_topic(row(), pool, rng)
        text = wrong_length(row(), pool, rng)
        if text is not None and len(text) < len(ANSWER):
            assert ANSWER.startswith(text)
            cut += 1
        elif text is not None:
            assert text.startswith(ANSWER)
            longer += 1
    assert cut > 10 < longer
    assert shuffled_words(row("two words"), pool, Random(0)) is None
    assert repeated(row("two words"), pool, Random(0)) is None


def test_styles_are_asked_for_and_missed() -> None:
    found = [pair for seed in range(80) if (pair := wrong_style(row("The capital is Rome."), Random(seed)))]
    assert len(found) > 40
    for pair in found:
        chosen, rejected = texts(pair)
        request = " ".join(message["content"] for message in pair["prompt"])
        assert chosen != rejected
        assert "Rome" in chosen.title()
        assert request != "What happens?"
    assert any(texts(pair)[1] == "The capital is Rome." for pair in found)
    assert any("capital letters" in pair["prompt"][-1]["content"] and texts(pair)[0].isupper() for pair in found)


def test_lists_have_the_form_and_number_that_are_asked_for() -> None:
    numbers = {str(number): number for number in range(2, 7)} | {NUMBER_WORDS[number]: number for number in range(2, 7)}
    separators = {"separated by commas": ", ", "separated by semicolons": "; ", "separated by slashes": "/"}
    checked = 0
    for pair in islice(wrong_formats(Random(0)), 2000):
        prompt = pair["prompt"][0]["content"]
        chosen, rejected = texts(pair)
        assert chosen != rejected
        asked = re.match(r"(?:Name|List|Give me|I need|Write down|Please give) (\w+) ", prompt)
        for wording, separator in separators.items():
            if asked and asked[1] in numbers and wording in prompt:
                items = chosen.split(separator)
                assert len(items) == len(set(items)) == numbers[asked[1]]
                wrong = rejected.split(separator)
                is_other_case = [item.lower() for item in wrong] == [item.lower() for item in items]
                assert len(wrong) != len(items) or is_other_case or rejected.startswith("[")
                checked += 1
        if "as a JSON array" in prompt:
            assert isinstance(json.loads(chosen), list)
        if "in capital letters" in prompt:
            assert chosen == chosen.upper()
    assert checked > 200


def test_rejected_translations_are_untranslated_or_of_another_language(pack) -> None:
    rows = {}
    for entry in TrainingRecords(pack).rows("sft/tatoeba_pairs_train"):
        rows[entry["text"]] = entry["lang"]
        rows[entry["english"]] = "eng"
    found = list(wrong_languages(TrainingRecords(pack), Random(0)))
    assert len(found) > 20
    for pair in found:
        chosen, rejected = texts(pair)
        prompt = " ".join(message["content"] for message in pair["prompt"])
        assert rows[chosen] != rows[rejected]
        assert (rejected in prompt) == (rejected in prompt and chosen not in prompt)


def test_hh_dialogues_become_messages() -> None:
    text = "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHow are you?\n\nHuman: Fine\n\nAssistant: Good"
    assert hh_messages(text) == [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello.\n\nHow are you?"},
        {"role": "user", "content": "Fine"},
        {"role": "assistant", "content": "Good"},
    ]
    assert hh_messages("\n\nHuman: Hi") == []


def test_the_pool_gives_answers_of_like_length() -> None:
    pool = AnswerPool()
    for size in range(1, 60):
        pool.add(row("x" * size, "size"))
    assert abs(len(pool.same_task("size", "y" * 30, Random(0))) - 30) <= 6
    assert pool.same_task("unknown", "y", Random(0)) is None
    assert pool.other_task("size", "y" * 30, Random(0)) is None
    assert lengths({"chosen": [{"content": "abc"}], "rejected": [{"content": "a"}]}) == (3, 1)
