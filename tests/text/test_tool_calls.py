import json
import math
import random

import pytest

from kilonova.text.tool_calls import CallInput, CallStart, ToolCall, ToolCallReader, call_header

WEATHER = '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris", "days": 3}}\n</tool_call>'
CLOCK = '<tool_call>\n{"name": "clock", "arguments": {}}\n</tool_call>'


def read(pieces):
    """The pieces of a stream, with neighbouring texts and neighbouring inputs joined."""
    reader = ToolCallReader()
    result = []
    for piece in (*(part for text in pieces for part in reader.push(text)), reader.flush()):
        if isinstance(piece, str) and result and isinstance(result[-1], str):
            result[-1] += piece
        elif isinstance(piece, CallInput) and isinstance(result[-1], CallInput):
            result[-1] = CallInput(result[-1].text + piece.text)
        elif piece:
            result.append(piece)
    return result


def calls(pieces):
    return [(piece.name, piece.arguments) for piece in pieces if isinstance(piece, ToolCall)]


def test_text_and_calls_in_order():
    pieces = read(["Let me look.\n" + WEATHER + "\n" + CLOCK + "\nDone."])
    assert [type(piece) for piece in pieces] == [str, *(CallStart, CallInput, ToolCall) * 2, str]
    assert (pieces[0], pieces[-1]) == ("Let me look.", "\nDone.")
    assert pieces[1:3] == [CallStart("weather"), CallInput('{"city": "Paris", "days": 3}')]
    assert calls(pieces) == [("weather", {"city": "Paris", "days": 3}), ("clock", {})]


@pytest.mark.parametrize("text", ["a < b and <tool> and <tool_cal", "\n\n<tool_call", "</tool_call> alone", "{}\n"])
def test_what_is_no_call_stays_text(text):
    assert read([text]) == [text]
    assert read(list(text)) == [text]


def test_a_call_that_is_cut_off_is_no_text():
    for length in range(len("<tool_call>"), len(WEATHER)):
        pieces = read(list("So:\n" + WEATHER[:length]))
        assert pieces[0] == "So:"
        assert not any(isinstance(piece, str | ToolCall) for piece in pieces[1:])


def test_everything_is_passed_on_at_once():
    reader = ToolCallReader()
    assert reader.push("Hello <b") == ["Hello <b"]
    assert reader.push(" and <to") == [" and "]
    assert reader.push("ol>") == ["<tool>"]
    assert reader.push("line\n") == ["line"]
    assert reader.push("next") == ["\nnext"]
    assert reader.push('<tool_call>\n{"name": "clock", "argum') == []
    assert reader.push('ents": {"a') == [CallStart("clock"), CallInput('{"a')]
    assert reader.push('": {') == [CallInput('": {')]
    assert reader.push("}") == []
    assert reader.push("}") == [CallInput("}")]
    assert reader.push("}\n</tool") == [CallInput("}")]
    length = len('<tool_call>\n{"name": "clock", "arguments": {"a": {}}}\n</tool_call>')
    assert reader.push("_call>after") == [ToolCall("clock", {"a": {}}, length), "after"]


def test_a_calls_length_is_that_of_its_text():
    before, _, _, call = read(["So:\n" + WEATHER])
    assert len(before) + call.length == len("So:\n" + WEATHER)


def test_arguments_may_hold_the_marks():
    arguments = {"text": "a </tool_call> and }\n</tool_call> and <tool_call>"}
    name = 'no\te "é'
    text = f"<tool_call>{call_header(name)}{json.dumps(arguments)}}}\n</tool_call>"
    assert calls(read(list(text))) == [(name, arguments)]


def test_numbers_stay_writable_as_json():
    digits = "9" * 5000
    text = f'<tool_call>{call_header("f")}{{"a": [1e999, -1e999, {digits}, 1.5, 12]}}}}\n</tool_call>'
    ((_, arguments),) = calls(read([text]))
    assert arguments["a"][3:] == [1.5, 12]
    assert all(math.isfinite(number) for number in arguments["a"])
    assert json.loads(json.dumps(arguments)) == arguments


def test_the_cut_into_pieces_does_not_matter():
    text = "Look:\n" + WEATHER + "\n" + CLOCK + "\nthen\n" + WEATHER + "\n<tool_"
    expected = read([text])
    assert len(calls(expected)) == 3
    generator = random.Random(0)
    for _ in range(200):
        cuts = sorted(generator.sample(range(1, len(text)), 12))
        pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        assert read(pieces) == expected
