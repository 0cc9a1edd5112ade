"""Useless rows, one of each kind, among good ones."""

from typing import Any

import pytest

from kilonova.core.errors import ConfigError
from kilonova.data.training_rows import RowRules, clean_conversations, clean_preferences


def turn(role: str, content: str | None, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


GOOD = [
    {"messages": [turn("system", ""), turn("user", "Hi"), turn("assistant", "Hello!")]},
    {
        "messages": [
            turn("user", "Weather?"),
            turn("assistant", None, tool_calls=[{"function": {"name": "weather", "arguments": {}}}]),
            turn("tool", "20"),
            turn("tool", "21"),
            turn("assistant", "Warm."),
        ],
        "tools": [{"type": "function"}],
    },
]
BAD = {
    "malformed messages": [
        {},
        {"messages": []},
        {"messages": "Hi"},
        {"messages": [turn("robot", "Hi")]},
        {"messages": [turn("user", 3)]},  # type: ignore[arg-type]
    ],
    "does not begin with the user": [{"messages": [turn("assistant", "Hello!")]}, {"messages": [turn("system", "x")]}],
    "does not end with the assistant": [{"messages": [turn("user", "Hi")]}],
    "two turns of one role in a row": [{"messages": [turn("user", "a"), turn("user", "b"), turn("assistant", "c")]}],
    "empty answer": [{"messages": [turn("user", "a"), turn("assistant", " \n")]}],
    "empty question": [{"messages": [turn("user", ""), turn("assistant", "b")]}],
    "too long": [{"messages": [turn("user", "a" * 60), turn("assistant", "b" * 41)]}],
    "repeats an earlier row": [{"messages": [turn("system", ""), turn("user", "Hi "), turn("assistant", "Hello!")]}],
}


def test_conversations() -> None:
    rows = [*GOOD, *(row for bad in BAD.values() for row in bad)]
    kept, report = clean_conversations(iter(rows), RowRules(max_characters=100))
    assert kept == GOOD
    assert (report.rows, report.kept) == (len(rows), 2)
    assert report.dropped == {problem: len(bad) for problem, bad in BAD.items()}


def pair(prompt: str, chosen: str, rejected: str) -> dict[str, Any]:
    answers = {"chosen": [turn("assistant", chosen)], "rejected": [turn("assistant", rejected)]}
    return {"prompt": [turn("user", prompt)], **answers}


def test_preferences() -> None:
    good = [pair("a", "good", "bad"), pair("b", "good", "bad"), pair("a", "good", "worse")]
    bad = {
        "malformed messages": [{"prompt": "a", "chosen": "b", "rejected": "c"}, {**good[0], "rejected": []}],
        "the prompt does not end with the user": [{**good[0], "prompt": [turn("assistant", "x")]}],
        "an answer is not the assistant's": [{**good[0], "chosen": [turn("user", "x")]}],
        "empty answer": [pair("c", "good", "")],
        "chosen and rejected are the same": [pair("c", "so  good", "so good ")],
        "too long": [pair("c", "good", "b" * 100)],
        "repeats an earlier row": [pair("a", "good", "bad")],
        "contradicts an earlier pair": [pair("b", "bad", "good")],
    }
    rows = [*good, *(row for each in bad.values() for row in each)]
    kept, report = clean_preferences(rows, RowRules(max_characters=100))
    assert kept == good
    assert report.dropped == {problem: len(each) for problem, each in bad.items()}


def test_length_limit_is_positive() -> None:
    with pytest.raises(ConfigError, match="max_characters"):
        RowRules(max_characters=0)
    assert clean_conversations(GOOD, RowRules(max_characters=None))[1].kept == 2
