"""The responses API through the openai package: a real server, and one whose engine plays a script."""

import json
import subprocess
import sys
from pathlib import Path

import openai
import pytest
from tests.serve.conftest import run_server

from kilonova.core.errors import EngineError
from kilonova.core.types import (
    Finished,
    NamedTool,
    PromptProcessed,
    TextBlock,
    TextDelta,
    TokenLogprob,
    ToolInputDelta,
    ToolResultBlock,
    ToolUse,
    ToolUseBlock,
    ToolUseStart,
    Usage,
)

GREEDY = {"model": "tiny", "temperature": 0, "max_output_tokens": 8}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOL = {"type": "function", "name": "weather", "description": "d", "parameters": SCHEMA, "strict": False}


@pytest.fixture
def client(server):
    return server.openai


def test_a_response_is_kept_with_its_input(client):
    answer = client.responses.create(input="tell me", instructions="be brief", metadata={"a": "b"}, **GREEDY)
    assert answer.object == "response"
    assert answer.status in ("completed", "incomplete")
    assert answer.output[0].type == "message"
    assert answer.output_text == answer.output[0].content[0].text
    assert (answer.model, answer.instructions, answer.metadata) == ("tiny", "be brief", {"a": "b"})
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens
    assert client.responses.retrieve(answer.id) == answer
    (item,) = client.responses.input_items.list(answer.id)
    assert (item.type, item.role, item.content[0].text) == ("message", "user", "tell me")


def test_a_response_says_what_chat_says(client):
    answer = client.responses.create(input="tell me", instructions="be brief", **GREEDY)
    chat = client.chat.completions.create(
        model="tiny",
        temperature=0,
        max_tokens=8,
        messages=[{"role": "system", "content": "be brief"}, {"role": "user", "content": "tell me"}],
    )
    assert answer.output_text == chat.choices[0].message.content
    assert answer.usage.input_tokens == chat.usage.prompt_tokens
    count = client.responses.input_tokens.count(model="tiny", input="tell me", instructions="be brief")
    assert count.input_tokens == chat.usage.prompt_tokens


def test_a_stream_has_every_event_in_order(client):
    whole = client.responses.create(input="tell me", **GREEDY)
    events = list(client.responses.create(input="tell me", stream=True, **GREEDY))
    kinds = [event.type for event in events if event.type != "response.output_text.delta"]
    assert kinds == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        f"response.{whole.status}",
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == whole.output_text
    last = events[-1].response
    assert last.output_text == whole.output_text
    assert last.id == events[0].response.id
    assert events[0].response.status == "in_progress"
    assert events[0].response.output == []
    assert client.responses.retrieve(last.id) == last
    with client.responses.stream(input="tell me", **GREEDY) as stream:
        assert [event.type for event in stream][-1] == f"response.{whole.status}"

    replayed = list(client.responses.retrieve(last.id, stream=True))
    assert [event.sequence_number for event in replayed] == list(range(9))
    assert replayed[-1].response == last
    assert replayed[4].delta == whole.output_text
    assert [event.type for event in client.responses.retrieve(last.id, stream=True, starting_after=7)] == kinds[-1:]


def test_a_conversation_goes_on_from_a_response(client):
    first = client.responses.create(input="tell me", instructions="be brief", **GREEDY)
    second = client.responses.create(input="and more", previous_response_id=first.id, **GREEDY)
    third = client.responses.create(
        input=[{"role": "user", "content": "go on"}], previous_response_id=second.id, stream=True, **GREEDY
    )
    third = list(third)[-1].response
    turns = [
        {"role": "user", "content": "tell me"},
        {"role": "assistant", "content": first.output_text},
        {"role": "user", "content": "and more"},
        {"role": "assistant", "content": second.output_text},
        {"role": "user", "content": "go on"},
    ]
    at_once = client.responses.create(input=turns, store=False, **GREEDY)
    assert third.output_text == at_once.output_text
    assert third.usage.input_tokens == at_once.usage.input_tokens
    assert third.previous_response_id == second.id

    items = list(client.responses.input_items.list(third.id, order="asc", limit=2))
    assert [item.content[0].text for item in items] == [turn["content"] for turn in turns]
    latest = client.responses.input_items.list(third.id, limit=1)
    assert latest.data == items[-1:]
    assert latest.has_more


def test_references_to_items(client):
    first = client.responses.create(input="tell me", **GREEDY)
    (question,) = client.responses.input_items.list(first.id)
    referring = [
        {"type": "item_reference", "id": question.id},
        {"type": "item_reference", "id": first.output[0].id},
        {"role": "user", "content": "and more"},
    ]
    answer = client.responses.create(input=referring, **GREEDY)
    continued = client.responses.create(input="and more", previous_response_id=first.id, **GREEDY)
    assert answer.output_text == continued.output_text
    assert answer.usage.input_tokens == continued.usage.input_tokens


def test_deleted_responses_are_gone(client):
    first = client.responses.create(input="tell me", **GREEDY)
    second = client.responses.create(input="and", previous_response_id=first.id, **GREEDY)
    assert client.responses.delete(first.id) is None
    for gone in (first.id, "resp_unknown"):
        with pytest.raises(openai.NotFoundError, match="not found"):
            client.responses.retrieve(gone)
        with pytest.raises(openai.NotFoundError):
            client.responses.delete(gone)
    for missing in (first.id, second.id):
        with pytest.raises(openai.BadRequestError, match=first.id) as caught:
            client.responses.create(input="and", previous_response_id=missing, **GREEDY)
        assert caught.value.code == "previous_response_not_found"
    assert client.responses.retrieve(second.id) == second
    with pytest.raises(openai.BadRequestError, match="Cannot cancel a synchronous response"):
        client.responses.cancel(second.id)


def test_what_is_not_to_be_stored_is_not(client):
    answer = client.responses.create(input="tell me", store=False, **GREEDY)
    assert not answer.model_extra["store"]
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(answer.id)


def make_key(directory, name):
    command = [str(Path(sys.executable).with_name("kilonova")), "keys", "create", name, "--json"]
    made = subprocess.run([*command, "--data", str(directory / "data")], capture_output=True, text=True, check=True)
    return json.loads(made.stdout)["openai_key"]


def test_responses_outlive_the_server_and_belong_to_their_key(tiny_micro_directory, tmp_path):
    keys = [make_key(tmp_path, name) for name in ("ours", "theirs")]
    arguments = ("--model", f"tiny={tiny_micro_directory}")
    with run_server(tmp_path, *arguments) as server:
        first = server.openai.with_options(api_key=keys[0]).responses.create(input="tell me", **GREEDY)
    with run_server(tmp_path, *arguments) as server:
        ours, theirs = (server.openai.with_options(api_key=key).responses for key in keys)
        assert ours.retrieve(first.id) == first
        answer = ours.create(input="and", previous_response_id=first.id, **GREEDY)
        assert answer.usage.input_tokens > first.usage.input_tokens
        for ask in (theirs.retrieve, theirs.delete, theirs.cancel, theirs.input_items.list):
            with pytest.raises(openai.NotFoundError):
                ask(first.id)
        with pytest.raises(openai.BadRequestError) as caught:
            theirs.create(input="and", previous_response_id=first.id, **GREEDY)
        assert caught.value.code == "previous_response_not_found"
        with pytest.raises(openai.NotFoundError):
            theirs.create(input=[{"type": "item_reference", "id": first.output[0].id}], **GREEDY)


def test_truncation_drops_the_oldest_turns(client):
    turns = [
        {"role": role, "content": f"{role} {number} " + "word " * 40}
        for number in range(4)
        for role in ("user", "assistant")
    ]
    turns.append({"role": "user", "content": "last"})
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(input=turns, **GREEDY)
    assert caught.value.code == "context_length_exceeded"
    assert caught.value.param == "input"
    answer = client.responses.create(input=turns, truncation="auto", **GREEDY)
    fits = client.responses.create(input=turns, truncation="auto", **(GREEDY | {"max_output_tokens": 300}))
    assert 512 - 8 >= answer.usage.input_tokens > fits.usage.input_tokens
    with pytest.raises(openai.BadRequestError):
        client.responses.create(input="word " * 3000, truncation="auto", **GREEDY)


def finished(reason="end_turn"):
    return Finished(reason, Usage(50, 3, cache_read_input_tokens=32))


def tool_script(request):
    return [
        PromptProcessed(50),
        TextDelta("Let me look."),
        ToolUseStart("call_1", "weather"),
        ToolInputDelta('{"city": '),
        ToolInputDelta('"Paris"}'),
        ToolUse(ToolUseBlock("call_1", "weather", {"city": "Paris"})),
        finished("tool_use"),
    ]


def test_streamed_function_calls(play):
    server, engine = play(tool_script)
    request = {
        "model": "micro",
        "input": "weather?",
        "tools": [TOOL],
        "tool_choice": {"type": "function", "name": "weather"},
        "parallel_tool_calls": False,
    }
    events = list(server.openai.responses.create(stream=True, **request))
    assert [event.type for event in events[2:]] == [
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event.output_index for event in events[2:-1]] == [0] * 6 + [1] * 5
    answer = events[-1].response
    call = answer.output[1]
    assert (call.type, call.call_id, call.name, call.status) == ("function_call", "call_1", "weather", "completed")
    assert json.loads(call.arguments) == json.loads(events[-3].arguments) == {"city": "Paris"}
    assert answer.usage.input_tokens_details.cached_tokens == 32
    assert answer.tools[0].name == "weather"
    assert engine.requests[0].tool_choice == NamedTool("weather")
    assert not engine.requests[0].parallel_tool_calls

    whole = server.openai.responses.create(**request)
    assert [item.type for item in whole.output] == ["message", "function_call"]
    assert whole.output[1].arguments == '{"city": "Paris"}'

    server.openai.responses.create(
        model="micro",
        previous_response_id=answer.id,
        tools=[TOOL],
        input=[{"type": "function_call_output", "call_id": "call_1", "output": "sunny"}],
    )
    user, assistant, result = engine.requests[-1].messages
    assert user.text == "weather?"
    assert assistant.content == (TextBlock("Let me look."), ToolUseBlock("call_1", "weather", {"city": "Paris"}))
    assert result.content == (ToolResultBlock("call_1", (TextBlock("sunny"),)),)


def test_output_sent_back_as_input(play):
    server, engine = play(tool_script)
    answer = server.openai.responses.create(model="micro", input="weather?", tools=[TOOL], store=False)
    items = [{"role": "user", "content": "weather?"}, *answer.output]
    items.append({"type": "function_call_output", "call_id": "call_1", "output": [{"type": "input_text", "text": "x"}]})
    server.openai.responses.create(model="micro", input=items, tools=[TOOL], store=False)
    assert [message.role for message in engine.requests[-1].messages] == ["user", "assistant", "user"]


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_cut_off_is_incomplete(play, stream):
    def script(request):
        return [PromptProcessed(50), ToolUseStart("c", "weather"), ToolInputDelta('{"ci'), finished("max_tokens")]

    server, engine = play(script)
    request = {"model": "micro", "input": "weather?", "tools": [TOOL]}
    answer = server.openai.responses.create(stream=stream, **request)
    answer = list(answer)[-1].response if stream else answer
    assert (answer.status, answer.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert (answer.output[0].status, answer.output[0].arguments) == ("incomplete", '{"ci')
    server.openai.responses.create(model="micro", input="go on", previous_response_id=answer.id)
    assert [message.text for message in engine.requests[-1].messages] == ["weather?\n\ngo on"]


def test_a_fault_inside_a_stream_is_a_failed_response(play):
    server, engine = play(lambda request: [PromptProcessed(5), TextDelta("some"), EngineError("the step failed")])
    *_, last = server.openai.responses.create(model="micro", input="a", stream=True)
    assert last.type == "response.failed"
    assert (last.response.status, last.response.error.code) == ("failed", "server_error")
    assert last.response.error.message == "the step failed"
    assert not engine.running
    with pytest.raises(openai.InternalServerError):
        server.openai.responses.create(model="micro", input="a")


def test_log_probabilities(play):
    token = TokenLogprob(1, "a", -0.5, (TokenLogprob(1, "a", -0.5), TokenLogprob(2, "b", -1.5)))
    server, engine = play(lambda request: [PromptProcessed(5), TextDelta("a", (token,)), finished()])
    answer = server.openai.responses.create(
        model="micro", input="a", include=["message.output_text.logprobs"], top_logprobs=2
    )
    (entry,) = answer.output[0].content[0].logprobs
    assert (entry.token, entry.logprob) == ("a", -0.5)
    assert [other.token for other in entry.top_logprobs] == ["a", "b"]
    assert engine.requests[0].sampling.logprobs == 2


def test_a_silent_answer_is_one_empty_message(play):
    server, _ = play(lambda request: [PromptProcessed(5), finished()])
    answer = server.openai.responses.create(model="micro", input="a")
    assert (answer.status, answer.output_text, len(answer.output)) == ("completed", "", 1)
