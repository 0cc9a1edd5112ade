import random

import pytest

from kilonova.text.tool_calls import ToolCall, ToolCallSplitter

WEATHER = '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris", "days": 3}}\n</tool_call>'
CLOCK = '<tool_call>\n{"name": "clock", "arguments": {}}\n</tool_call>'


def split(pieces):
    splitter = ToolCallSplitter()
    result = []
    for piece in (*(part for text in pieces for part in splitter.push(text)), splitter.flush()):
        if isinstance(piece, str) and result and isinstance(result[-1], str):
            result[-1] += piece
        elif piece:
            result.append(piece)
    return result


def calls(pieces):
    return [(piece.name, piece.arguments) for piece in pieces if isinstance(piece, ToolCall)]


def test_text_and_calls_in_order():
    pieces = split(["Let me look.\n" + WEATHER + "\n" + CLOCK + "\nDone."])
    assert pieces[0] == "Let me look."
    assert calls(pieces) == [("weather", {"city": "Paris", "days": 3}), ("clock", {})]
    assert pieces[3] == "\nDone."
    assert len(pieces) == 4


@pytest.mark.parametrize(
    "text",
    [
        "a < b and <tool> and <tool_cal",
        "\n\n<tool_call",
        "<tool_call>\n{not json}\n</tool_call>",
        '<tool_call>\n["weather"]\n</tool_call>',
        '<tool_call>\n{"name": "", "arguments": {}}\n</tool_call>',
        '<tool_call>\n{"name": 5, "arguments": {}}\n</tool_call>',
        '<tool_call>\n{"name": "weather", "arguments": "Paris"}\n</tool_call>',
        '<tool_call>\n{"name": "weather", "arguments": {"x": NaN}}\n</tool_call>',
        '<tool_call>\n{"name": "weather", "argum',
        "before\n<tool_call>" + "[" * 100_000 + "</tool_call> after",
        "</tool_call> alone",
    ],
)
def test_what_is_no_call_stays_text(text):
    assert split([text]) == [text]
    assert split(list(text[:200])) == [text[:200]]


def test_arguments_may_be_left_out():
    assert calls(split(['<tool_call>{"name": "clock"}</tool_call>'])) == [("clock", {})]


def test_a_call_after_an_abandoned_opening():
    abandoned = '<tool_call>\n{"name": "wea '
    pieces = split([abandoned + WEATHER])
    assert pieces[0] == abandoned
    assert calls(pieces) == [("weather", {"city": "Paris", "days": 3})]


def test_text_is_passed_on_at_once():
    splitter = ToolCallSplitter()
    assert splitter.push("Hello <b") == ["Hello <b"]
    assert splitter.push(" and <to") == [" and "]
    assert splitter.push("ol>") == ["<tool>"]
    assert splitter.push("line\n") == ["line"]
    assert splitter.push("next") == ["\nnext"]


def test_a_calls_text_is_what_it_was_read_from():
    (before, call) = split(["So:\n" + WEATHER])
    assert before + call.text == "So:\n" + WEATHER


def test_the_cut_into_pieces_does_not_matter():
    text = "Look:\n" + WEATHER + "\n" + CLOCK + " <tool_call>{bad}</tool_call>\n" + WEATHER + "\n<tool_"
    expected = split([text])
    assert len(calls(expected)) == 3
    generator = random.Random(0)
    for _ in range(200):
        cuts = sorted(generator.sample(range(1, len(text)), 12))
        pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        assert split(pieces) == expected
