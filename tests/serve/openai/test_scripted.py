"""Chat and completions with an engine that plays a script: what reaches it, and what its events become."""

import json

import openai
import pytest

from kilonova.core.errors import EngineError, InvalidRequest
from kilonova.core.types import (
    Finished,
    Grammar,
    NamedTool,
    PromptProcessed,
    TextDelta,
    TokenLogprob,
    Tool,
    ToolInputDelta,
    ToolUse,
    ToolUseBlock,
    ToolUseStart,
    Usage,
)

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
USER = [{"role": "user", "content": "weather?"}]
REQUEST = {"model": "micro", "messages": USER}


def function(name):
    return {"type": "function", "function": {"name": name, "description": "d", "parameters": SCHEMA}}


TOOLS = [function("weather"), function("clock")]


def finished(reason="end_turn"):
    return Finished(reason, Usage(50, 3, cache_read_input_tokens=32))


def silent(request):
    return [PromptProcessed(50), TextDelta("ok"), finished()]


def call(identifier, name, pieces):
    text = "".join(pieces)
    return [
        ToolUseStart(identifier, name),
        *(ToolInputDelta(piece) for piece in pieces),
        ToolUse(ToolUseBlock(identifier, name, json.loads(text))),
    ]


def two_calls(request):
    return [
        PromptProcessed(50),
        TextDelta("Let me look."),
        *call("call_1", "weather", ['{"city": ', '"Paris', '"}']),
        *call("call_2", "clock", ["{}"]),
        finished("tool_use"),
    ]


def test_streamed_tool_calls_come_in_pieces(play):
    server, _ = play(two_calls)
    with server.openai.chat.completions.stream(**REQUEST, tools=TOOLS) as stream:
        events = list(stream)
    answer = stream.get_final_completion().choices[0]
    assert answer.finish_reason == "tool_calls"
    assert answer.message.content == "Let me look."
    assert [(each.id, each.function.name, each.function.arguments) for each in answer.message.tool_calls] == [
        ("call_1", "weather", '{"city": "Paris"}'),
        ("call_2", "clock", "{}"),
    ]
    pieces = [event.arguments_delta for event in events if event.type == "tool_calls.function.arguments.delta"]
    assert [piece for piece in pieces if piece] == ['{"city": ', '"Paris', '"}', "{}"]


def test_streamed_and_whole_tool_calls_are_the_same(play):
    server, _ = play(two_calls)
    whole = server.openai.chat.completions.create(**REQUEST, tools=TOOLS).choices[0].message
    chunks = list(server.openai.chat.completions.create(**REQUEST, tools=TOOLS, stream=True))
    calls = {}
    for chunk in chunks:
        for part in chunk.choices[0].delta.tool_calls or ():
            if part.id:
                calls[part.index] = {"id": part.id, "name": part.function.name, "arguments": ""}
            calls[part.index]["arguments"] += part.function.arguments
    assert whole.content == "Let me look."
    for index, each in enumerate(whole.tool_calls):
        assert calls[index]["id"] == each.id
        assert calls[index]["name"] == each.function.name
        assert json.loads(calls[index]["arguments"]) == json.loads(each.function.arguments)


NAMED = {"type": "function", "function": {"name": "clock"}}
ALLOWED = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [NAMED]}}


@pytest.mark.parametrize(
    ("choice", "names", "expected"),
    [
        ("auto", ["weather", "clock"], "auto"),
        ("none", [], "auto"),
        ("required", ["weather", "clock"], "required"),
        (NAMED, ["weather", "clock"], NamedTool("clock")),
        (ALLOWED, ["clock"], "required"),
    ],
)
def test_choices_of_tools(play, choice, names, expected):
    server, engine = play(silent)
    server.openai.chat.completions.create(**REQUEST, tools=TOOLS, tool_choice=choice, parallel_tool_calls=False)
    (request,) = engine.requests
    assert [tool.name for tool in request.tools] == names
    assert request.tool_choice == expected
    assert not request.parallel_tool_calls


def test_strict_functions(play):
    server, engine = play(silent)
    tools = [{"type": "function", "function": {"name": "f", "parameters": SCHEMA, "strict": True}}]
    server.openai.chat.completions.create(**REQUEST, tools=tools)
    assert engine.requests[0].tools == (Tool("f", "", SCHEMA, True),)


@pytest.mark.parametrize(
    ("parameters", "grammar"),
    [
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {"type": "json_object"}}, Grammar("json_object")),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}},
            Grammar("json_schema", SCHEMA),
        ),
        ({"extra_body": {"guided_json": SCHEMA}}, Grammar("json_schema", SCHEMA)),
        ({"extra_body": {"guided_json": json.dumps(SCHEMA)}}, Grammar("json_schema", SCHEMA)),
        ({"extra_body": {"guided_regex": "a+"}}, Grammar("regex", "a+")),
        ({"extra_body": {"structured_outputs": {"choice": ["a", "b"]}}}, Grammar("choice", ("a", "b"))),
        ({"extra_body": {"structured_outputs": {"grammar": 'start: "a"'}}}, Grammar("lark", 'start: "a"')),
        ({"extra_body": {"structured_outputs": {"json_object": True}}}, Grammar("json_object")),
    ],
)
def test_formats(play, parameters, grammar):
    server, engine = play(silent)
    server.openai.chat.completions.create(**REQUEST, **parameters)
    assert engine.requests[0].grammar == grammar


def test_sampling_reaches_the_engine(play):
    server, engine = play(silent)
    server.openai.chat.completions.create(
        **REQUEST,
        frequency_penalty=0.5,
        presence_penalty=-1,
        logit_bias={"5": -100, "7": 3.5},
        max_completion_tokens=9,
        stop=["a", "b"],
        seed=3,
        extra_body={"top_k": 4, "min_p": 0.1, "repetition_penalty": 1.2, "ignore_eos": True},
    )
    sampling = engine.requests[0].sampling
    assert (sampling.frequency_penalty, sampling.presence_penalty) == (0.5, -1.0)
    assert sampling.logit_bias == {5: -100.0, 7: 3.5}
    assert (sampling.max_tokens, sampling.stop, sampling.seed) == (9, ("a", "b"), 3)
    assert (sampling.top_k, sampling.min_p, sampling.repetition_penalty) == (4, 0.1, 1.2)
    assert sampling.ignore_eos


@pytest.mark.parametrize(
    ("asked", "served"),
    [(None, "default"), ("auto", "default"), ("default", "default"), ("flex", "flex"), ("priority", "priority")],
)
def test_service_tiers(play, asked, served):
    server, engine = play(silent)
    parameters = {} if asked is None else {"service_tier": asked}
    answer = server.openai.chat.completions.create(**REQUEST, **parameters)
    assert answer.service_tier == served
    assert engine.requests[0].service_tier == served


def test_what_changes_nothing_is_accepted(play):
    server, _ = play(silent)
    answer = server.openai.chat.completions.create(
        **REQUEST,
        metadata={"team": "a"},
        user="u",
        safety_identifier="s",
        prompt_cache_key="k",
        store=False,
        modalities=["text"],
        reasoning_effort="none",
        verbosity="low",
    )
    assert answer.choices[0].message.content == "ok"
    assert answer.choices[0].message.refusal is None


def test_usage_counts_a_shared_prompt_once(play):
    server, _ = play(silent)
    usage = server.openai.chat.completions.create(**REQUEST, n=3).usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (50, 9, 59)
    assert usage.prompt_tokens_details.cached_tokens == 32
    assert usage.completion_tokens_details.reasoning_tokens == 0
    completion = server.openai.completions.create(model="micro", prompt=["a", "b"], n=2).usage
    assert (completion.prompt_tokens, completion.completion_tokens) == (100, 12)
    assert completion.prompt_tokens_details.cached_tokens == 64


@pytest.mark.parametrize("n", [1, 3])
def test_a_fault_ends_a_stream_with_one_error(play, n):
    server, engine = play(lambda request: [PromptProcessed(5), TextDelta("some"), EngineError("the step failed")])
    texts = []
    stream = server.openai.chat.completions.create(**REQUEST, n=n, stream=True)
    with pytest.raises(openai.APIError, match="the step failed") as caught:
        texts.extend(chunk.choices[0].delta.content for chunk in stream)
    assert caught.value.body == {
        "message": "the step failed",
        "type": "server_error",
        "param": None,
        "code": None,
    }
    assert "some" in texts
    assert not engine.running


@pytest.mark.parametrize(
    ("parameters", "field", "param"),
    [
        ({"response_format": {"type": "json_object"}}, "grammar", "response_format"),
        ({"extra_body": {"guided_regex": "("}}, "grammar", "guided_regex"),
        ({"tools": TOOLS}, "tools.1.parameters", "tools[1].function.parameters"),
        ({"max_completion_tokens": 9}, "max_tokens", "max_completion_tokens"),
        ({}, "prompt", "messages"),
    ],
)
def test_errors_of_the_engine_name_what_was_sent(play, parameters, field, param):
    server, _ = play(lambda request: [InvalidRequest("no", field=field)])
    with pytest.raises(openai.BadRequestError) as caught:
        server.openai.chat.completions.create(**REQUEST, **parameters)
    assert caught.value.param == param


def test_prompt_log_probabilities_as_vllm_reports_them(play):
    top = (TokenLogprob(8, "b", -0.1), TokenLogprob(9, "c", -2.5))
    prompt = (None, TokenLogprob(9, "c", -2.5, top))

    def script(request):
        assert request.sampling.prompt_logprobs == 2
        return [PromptProcessed(2, prompt, (7, 9)), TextDelta("ok"), finished()]

    server, _ = play(script)
    expected = [
        None,
        {
            "8": {"logprob": -0.1, "rank": 1, "decoded_token": "b"},
            "9": {"logprob": -2.5, "rank": 2, "decoded_token": "c"},
        },
    ]
    extra = {"extra_body": {"prompt_logprobs": 2}}
    chat = server.openai.chat.completions.create(**REQUEST, **extra)
    assert chat.choices[0].model_extra["prompt_logprobs"] == expected
    completion = server.openai.completions.create(model="micro", prompt="a", **extra)
    assert completion.choices[0].model_extra["prompt_logprobs"] == expected
    assert completion.choices[0].text == "ok"
