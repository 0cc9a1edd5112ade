"""Answers of the right form that are wrong: another number, label, item or word."""

from __future__ import annotations

import json
import re
from random import Random
from typing import Any

from kilonova.data.instruct.conversation import Row
from kilonova.data.instruct.words import split_words
from kilonova.data.preference_pairs.pair import AnswerPool, answer_of, last_task

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_YES_NO = {"yes": "no", "no": "yes", "Yes": "No", "No": "Yes", "Yes.": "No.", "No.": "Yes."}
# Tasks with many right answers, and conversation, where another answer is not wrong.
_OPEN_TASKS = frozenset(
    split_words(
        """chat continue story summary simplify identity courtesy instruction name_category informal_to_formal
        common_concept rhymes synonyms persona harmless refusal no_access not_told title dialogue_summary reading_level
        cause_and_effect translation language_identification"""
    )
)
_ORDERED_TASKS = frozenset(split_words("sort_words sort_numbers reverse_words reverse_letters sequence letters_list"))


def is_verifiable(row: Row) -> bool:
    """Whether a row's task has one right answer."""
    task = last_task(row)
    return answer_of(row) is not None and task not in _OPEN_TASKS and not task.startswith("translation")


def wrong_answer(row: Row, pool: AnswerPool, rng: Random) -> str | None:
    """A wrong answer to a verifiable row, None where no rule makes one."""
    answer = answer_of(row)
    if answer is None or not is_verifiable(row):
        return None
    task = last_task(row)
    if answer in _YES_NO:
        return _YES_NO[answer]
    if _NUMBER.fullmatch(answer):
        return other_number(answer, rng)
    if answer[0] in "{[":
        return _other_json(answer, pool, task, rng)
    items = answer.split(", ")
    if len(items) > 1 and len(answer) < 200:
        return _other_list(items, ordered=task in _ORDERED_TASKS, rng=rng)
    if len(answer.split()) > 4:
        return other_words(answer, rng)
    return pool.same_task(task, answer, rng)


def other_number(number: str, rng: Random) -> str:
    """A different number, most often of as many digits, in the same notation."""
    digits = [at for at, character in enumerate(number) if character.isdigit()]
    at = rng.choice(digits)
    is_leading = at == digits[0] and len(digits) > 1
    choices = [digit for digit in "0123456789"[is_leading:] if digit != number[at]]
    return number[:at] + rng.choice(choices) + number[at + 1 :]


def other_words(text: str, rng: Random) -> str | None:
    """The text with one word lost, said twice, or in another place; None if that changes nothing."""
    words = text.split(" ")
    at, to = rng.sample(range(len(words)), 2)
    match rng.randrange(4):
        case 0:
            changed = [*words[:at], *words[at + 1 :]]
        case 1:
            changed = [*words[: at + 1], *words[at:]]
        case _:
            changed = list(words)
            changed[at], changed[to] = changed[to], changed[at]
    return None if changed == words else " ".join(changed)


def _other_list(items: list[str], *, ordered: bool, rng: Random) -> str | None:
    """The list in another order if its order matters, else with an item lost or said twice."""
    changed = list(items)
    if ordered:
        rng.shuffle(changed)
    elif rng.random() < 0.5:
        del changed[rng.randrange(len(changed))]
    else:
        changed.insert(rng.randrange(len(changed) + 1), rng.choice(items))
    return None if changed == items else ", ".join(changed)


def _other_json(answer: str, pool: AnswerPool, task: str, rng: Random) -> str | None:
    """The JSON with one value changed, or with a bracket missing."""
    try:
        tree = json.loads(answer)
    except ValueError:
        return other_words(answer, rng) if " " in answer else None
    if rng.random() < 0.15:
        return answer[:-1]
    if isinstance(tree, dict) and tree:
        key: Any = rng.choice(sorted(tree))
    elif isinstance(tree, list) and tree:
        key = rng.randrange(len(tree))
    else:
        return pool.same_task(task, answer, rng)
    value = tree[key]
    if isinstance(value, bool):
        tree[key] = not value
    elif isinstance(value, int | float):
        tree[key] = json.loads(other_number(str(value), rng).lstrip("0") or "0")
    elif isinstance(value, str) and len(value) > 2:
        tree[key] = value[::-1] if rng.random() < 0.3 else value[: rng.randrange(1, len(value))]
    else:
        return pool.same_task(task, answer, rng)
    changed = json.dumps(tree, ensure_ascii=False)
    return None if json.loads(changed) == json.loads(answer) else changed
