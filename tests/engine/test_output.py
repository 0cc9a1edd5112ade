import pytest

from kilonova.core.types import TextDelta, ToolUse, ToolUseStart
from kilonova.engine.output import OutputStream
from kilonova.engine.sampling import RawLogprob

TEXT = "Das Füchslein 素早い 狐 <|x|> naïve — 🦊 ok"


def run(tokenizer, token_ids, stop=(), has_tools=False, with_logprobs=False):
    output = OutputStream(tokenizer, tuple(stop), has_tools)
    events = []
    for token_id in token_ids:
        raw = RawLogprob(token_id, -1.0, [token_id], [-1.0]) if with_logprobs else None
        events += output.push(token_id, raw)
        if output.stop_sequence is not None:
            return events, output
    return events + output.flush(), output


def text_of(events):
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def test_characters_split_over_tokens_come_whole(tiny_tokenizer):
    token_ids = tiny_tokenizer.encode(TEXT)
    assert len(token_ids) > len(TEXT) // 2
    events, _ = run(tiny_tokenizer, token_ids)
    assert text_of(events) == TEXT
    assert all("\ufffd" not in event.text and event.text for event in events)


def test_an_unfinished_character_is_replaced_at_the_end(tiny_tokenizer):
    token_ids = tiny_tokenizer.encode("ok 🦊")[:-1]
    events, _ = run(tiny_tokenizer, token_ids)
    assert text_of(events) == tiny_tokenizer.decode(token_ids)
    assert text_of(events).startswith("ok ")
    assert "\ufffd" in text_of(events)


@pytest.mark.parametrize(
    ("stop", "kept"), [("naïve", "Das Füchslein 素早い 狐 <|x|> "), ("早い 狐", "Das Füchslein 素")]
)
def test_stop_sequences_across_tokens(tiny_tokenizer, stop, kept):
    events, output = run(tiny_tokenizer, tiny_tokenizer.encode(TEXT), stop=[stop, "never"])
    assert text_of(events) == kept
    assert output.stop_sequence == stop


def test_a_stop_sequence_completed_by_the_flush(tiny_tokenizer):
    token_ids = tiny_tokenizer.encode("ok 🦊")[:-1]
    replaced = tiny_tokenizer.decode(token_ids).removeprefix("ok ")
    events, output = run(tiny_tokenizer, token_ids, stop=[replaced])
    assert (text_of(events), output.stop_sequence) == ("ok ", replaced)


def test_every_token_of_the_text_reports_once(tiny_tokenizer):
    token_ids = tiny_tokenizer.encode(TEXT)
    events, _ = run(tiny_tokenizer, token_ids, stop=["never", "ok no"], with_logprobs=True)
    reported = [entry for event in events for entry in event.logprobs]
    assert [entry.token_id for entry in reported] == token_ids
    assert reported[0].text == tiny_tokenizer.token_text(token_ids[0])
    assert reported[0].top[0].token_id == token_ids[0]


def test_tokens_of_the_stop_sequence_do_not_report(tiny_tokenizer):
    head, tail = tiny_tokenizer.encode("the quick"), tiny_tokenizer.encode(" brown")
    events, _ = run(tiny_tokenizer, head + tail, stop=[" brown"], with_logprobs=True)
    assert [entry.token_id for event in events for entry in event.logprobs] == head


CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris", "days": 3}}\n</tool_call>'


def test_tool_calls_become_events(tiny_tokenizer):
    token_ids = tiny_tokenizer.encode(f"I look.\n{CALL}\n{CALL}", allow_special=True)
    events, output = run(tiny_tokenizer, token_ids, has_tools=True, with_logprobs=True)
    uses = [event.block for event in events if isinstance(event, ToolUse)]
    assert [(use.name, dict(use.input)) for use in uses] == [("get_weather", {"city": "Paris", "days": 3})] * 2
    assert len({use.id for use in uses}) == 2
    assert all(use.id.startswith("tooluse_") and len(use.id) == len("tooluse_") + 22 for use in uses)
    assert text_of(events) == "I look."
    assert output.num_tool_calls == 2
    reported = "".join(entry.text for event in events if isinstance(event, TextDelta) for entry in event.logprobs)
    assert reported.rstrip("\n") == "I look."


def test_without_tools_the_marks_are_text(tiny_tokenizer):
    events, output = run(tiny_tokenizer, tiny_tokenizer.encode(CALL, allow_special=True))
    assert (text_of(events), output.num_tool_calls) == (CALL, 0)


def test_the_input_of_a_call_comes_in_pieces(tiny_tokenizer):
    events, _ = run(tiny_tokenizer, tiny_tokenizer.encode(f"{CALL}\n{CALL}", allow_special=True), has_tools=True)
    starts = [place for place, event in enumerate(events) if isinstance(event, ToolUseStart)]
    ends = [place for place, event in enumerate(events) if isinstance(event, ToolUse)]
    assert len(starts) == len(ends) == 2
    for start, end in zip(starts, ends, strict=True):
        pieces = [event.text for event in events[start + 1 : end]]
        assert len(pieces) > 5
        assert "".join(pieces) == '{"city": "Paris", "days": 3}'
        assert (events[start].id, events[start].name) == (events[end].block.id, "get_weather")


def test_text_before_a_call_comes_before_its_start(tiny_tokenizer):
    token_ids = tiny_tokenizer.encode(f"I wil{CALL}", allow_special=True)
    events, _ = run(tiny_tokenizer, token_ids, stop=["will"], has_tools=True, with_logprobs=True)
    first_call = next(place for place, event in enumerate(events) if isinstance(event, ToolUseStart))
    assert text_of(events[:first_call]) == text_of(events) == "I wil"


def test_nothing_more_comes_of_a_call_that_is_cut_off(tiny_tokenizer):
    for length in range(len("<tool_call>"), len(CALL)):
        token_ids = tiny_tokenizer.encode(f"So\n{CALL}\n{CALL[:length]}", allow_special=True)
        events, output = run(tiny_tokenizer, token_ids, has_tools=True, with_logprobs=True)
        assert (text_of(events), output.num_tool_calls) == ("So", 1)
        assert sum(isinstance(event, ToolUse) for event in events) == 1
        reported = "".join(entry.text for event in events if isinstance(event, TextDelta) for entry in event.logprobs)
        assert reported.rstrip("\n") == "So"


def test_stop_sequences_are_not_looked_for_in_calls(tiny_tokenizer):
    token_ids = tiny_tokenizer.encode(f"{CALL} Paris", allow_special=True)
    events, output = run(tiny_tokenizer, token_ids, stop=["Paris"], has_tools=True)
    assert output.num_tool_calls == 1
    assert (text_of(events), output.stop_sequence) == (" ", "Paris")
