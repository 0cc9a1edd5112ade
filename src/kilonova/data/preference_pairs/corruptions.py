"""Answers that anyone sees to be bad: of another question, in disorder, repeating, cut off, or with a foreign tail."""

from __future__ import annotations

from random import Random

from kilonova.data.instruct.conversation import Row, sentences
from kilonova.data.instruct.system_prompts import restyled
from kilonova.data.preference_pairs.pair import AnswerPool, Pair, answer_of, last_task, make_pair


def off_topic(row: Row, pool: AnswerPool, rng: Random) -> str | None:
    """The answer to a prompt of another task."""
    answer = answer_of(row)
    return None if answer is None else pool.other_task(last_task(row), answer, rng)


def shuffled_words(row: Row, pool: AnswerPool, rng: Random) -> str | None:
    """The words of the answer in random order."""
    words = (answer_of(row) or "").split()
    if len(words) < 4:
        return None
    changed = list(words)
    rng.shuffle(changed)
    return None if changed == words else " ".join(changed)


def repeated(row: Row, pool: AnswerPool, rng: Random) -> str | None:
    """A few words of the answer again and again, over 0.6 to 1.6 times its length."""
    answer = answer_of(row) or ""
    words = answer.split()
    if len(words) < 3:
        return None
    size = rng.randint(1, min(4, len(words) - 1))
    start = rng.randrange(len(words) - size + 1)
    target = len(answer) * rng.uniform(0.6, 1.6)
    text = words[:start] if rng.random() < 0.5 else []
    loop = words[start : start + size]
    text += 2 * loop
    while len(" ".join(text)) < target:
        text += loop
    return " ".join(text)


def wrong_length(row: Row, pool: AnswerPool, rng: Random) -> str | None:
    """The answer broken off in the middle, or followed by something that was not asked."""
    answer = answer_of(row) or ""
    words = answer.split(" ")
    if rng.random() < 0.5:
        if len(words) < 6:
            return None
        return " ".join(words[: rng.randint(len(words) // 4 + 1, 3 * len(words) // 4)]).rstrip(" .,;:!?")
    tail = pool.other_task(last_task(row), answer, rng)
    if tail is None or not answer:
        return None
    tail = " ".join(sentences(tail)[:3])
    return f"{answer}{rng.choice((' ', chr(10)))}{tail}"


def wrong_style(row: Row, rng: Random) -> Pair | None:
    """An answer in the style that is asked for, against the same one in another style or none."""
    asked, other = restyled(row, rng), restyled(row, rng)
    if asked is None or other is None:
        return None
    chosen, rejected = asked["messages"][-1]["content"], other["messages"][-1]["content"]
    plain = row["messages"][-1]["content"]
    if rejected == chosen or rng.random() < 0.3:
        rejected = plain
    if rejected == chosen:
        return None
    return make_pair("wrong_style", row["source"], asked["messages"][:-1], chosen, rejected)
