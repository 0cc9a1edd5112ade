"""Tasks whose answers a verifier checks, small enough for a very small model to learn by reinforcement."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

from kilonova.core.errors import DataError, nearest
from kilonova.core.files import write_atomic
from kilonova.data.instruct.words import ANIMALS, COLOURS, FIRST_NAMES, FRUITS, OBJECTS

Task = Callable[[Random], tuple[str, dict[str, Any]]]

_WORDS = (*ANIMALS, *COLOURS, *FRUITS, *OBJECTS)


def _arithmetic(rng: Random) -> tuple[str, dict[str, Any]]:
    first, second = rng.randint(0, 10), rng.randint(0, 10)
    sign, value = rng.choice((("+", first + second), ("-", first - second)))
    question = rng.choice(("What is {}?", "Calculate {}.", "{} = ?")).format(f"{first} {sign} {second}")
    return question, {"name": "number", "value": value}


def _counting(rng: Random) -> tuple[str, dict[str, Any]]:
    words = rng.choices(_WORDS, k=rng.randint(2, 8))
    question = rng.choice(("How many words are in this list?", "Count the words."))
    return f"{question}\n{', '.join(words)}", {"name": "number", "value": len(words)}


def _sorting(rng: Random) -> tuple[str, dict[str, Any]]:
    if rng.random() < 0.5:
        items = rng.sample(_WORDS, rng.randint(2, 4))
        question = "Put these words in alphabetical order."
        order = "ascending"
    else:
        items = [str(number) for number in rng.sample(range(1, 100), rng.randint(2, 4))]
        order = rng.choice(("ascending", "descending"))
        question = f"Sort these numbers in {order} order."
    return f"{question}\n{', '.join(items)}", {"name": "sorted_list", "items": items, "order": order}


def _copying(rng: Random) -> tuple[str, dict[str, Any]]:
    text = " ".join(rng.sample(_WORDS, rng.randint(1, 4)))
    question = rng.choice(("Repeat exactly:", "Copy this text:", "Say this and nothing else:"))
    return f"{question} {text}", {"name": "exact", "answer": text, "partial": True}


def _length(rng: Random) -> tuple[str, dict[str, Any]]:
    count, subject = rng.randint(1, 5), rng.choice(_WORDS)
    words = "one word" if count == 1 else f"exactly {count} words"
    return f"Describe a {subject} in {words}.", {"name": "word_count", "least": count, "most": count}


def _formatting(rng: Random) -> tuple[str, dict[str, Any]]:
    name, age = rng.choice(FIRST_NAMES), rng.randint(1, 90)
    wanted = {"name": {"const": name}, "age": {"const": age}}
    schema = {"type": "object", "properties": wanted, "required": ["name", "age"], "additionalProperties": False}
    verifiers = [
        {"name": "regex", "pattern": r"\{.*\}"},
        {"name": "words", "contains": [name, str(age), "name", "age"]},
        {"name": "json_schema", "schema": schema},
    ]
    question = f"Write this as JSON with the keys name and age: {name} is {age} years old."
    return question, {"name": "mean", "verifiers": verifiers}


TASKS: dict[str, Task] = {
    "arithmetic": _arithmetic,
    "counting": _counting,
    "sorting": _sorting,
    "copying": _copying,
    "length": _length,
    "formatting": _formatting,
}


def verifiable_rows(count: int, seed: int, tasks: tuple[str, ...] = ()) -> Iterator[dict[str, Any]]:
    """`count` rows of `prompt`, `verifier` and `task`, of all tasks in equal parts or of those named.

    Equal seeds give equal rows. Raises DataError for an unknown task.
    """
    names = tasks or tuple(TASKS)
    for name in names:
        if name not in TASKS:
            raise DataError(f"unknown task {name!r}: {nearest(name, TASKS)}")
    for number in range(count):
        name = names[number % len(names)]
        question, verifier = TASKS[name](Random(f"{seed} {number}"))
        yield {"prompt": [{"role": "user", "content": question}], "verifier": verifier, "task": name}


def write_verifiable(path: str | Path, count: int, seed: int, tasks: tuple[str, ...] = ()) -> dict[str, int]:
    """Write the rows as JSON lines; how many there are of each task."""
    rows = list(verifiable_rows(count, seed, tasks))
    write_atomic(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    counts: dict[str, int] = {}
    for row in rows:
        counts[row["task"]] = counts.get(row["task"], 0) + 1
    return counts
