"""What a random model does not do on demand: tool calls, faults, a full queue, slow answers; through real clients."""

import json
import math
import socket
import time

import boto3
import openai
import pytest
from botocore.exceptions import ClientError, EventStreamError

from kilonova.core.errors import ContextLengthExceeded, EngineError, InvalidRequest, Overloaded
from kilonova.core.types import (
    CachePointBlock,
    Finished,
    PromptProcessed,
    TextBlock,
    TextDelta,
    TokenLogprob,
    Tool,
    ToolInputDelta,
    ToolResultBlock,
    ToolUse,
    ToolUseBlock,
    ToolUseStart,
    Usage,
)

MICRO = "amazon.nova-micro-v1:0"
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}}
BEDROCK_TOOLS = {"tools": [{"toolSpec": {"name": "weather", "description": "d", "inputSchema": {"json": WEATHER}}}]}
OPENAI_TOOLS = [{"type": "function", "function": {"name": "weather", "description": "d", "parameters": WEATHER}}]
HELLO = [{"role": "user", "content": [{"text": "hello"}]}]


def finished(reason="end_turn", output=3) -> Finished:
    return Finished(reason, Usage(5, output), time_to_first_token=0.01, latency=0.25)


def tool_script(request):
    call = ToolUseBlock("tooluse_1", "weather", {"city": "Paris"})
    return [
        PromptProcessed(5),
        TextDelta("Let me look."),
        ToolUseStart("tooluse_1", "weather"),
        ToolInputDelta('{"city": "Paris"}'),
        ToolUse(call),
        finished("tool_use"),
    ]


def fault_script(request):
    return [PromptProcessed(5), TextDelta("some"), EngineError("the step failed")]


def early_fault_script(request):
    return [0.01, EngineError("the step failed")]


def test_converse_returns_tool_calls(play):
    server, engine = play(tool_script)
    answer = server.boto3("bedrock-runtime").converse(modelId=MICRO, messages=HELLO, toolConfig=BEDROCK_TOOLS)
    assert answer["stopReason"] == "tool_use"
    assert answer["output"]["message"]["content"] == [
        {"text": "Let me look."},
        {"toolUse": {"toolUseId": "tooluse_1", "name": "weather", "input": {"city": "Paris"}}},
    ]
    assert answer["usage"]["totalTokens"] == 8
    assert answer["metrics"]["latencyMs"] == 250
    assert engine.requests[0].tools == (Tool("weather", "d", WEATHER),)


def test_converse_stream_of_tool_calls(play):
    server, _ = play(tool_script)
    answer = server.boto3("bedrock-runtime").converse_stream(modelId=MICRO, messages=HELLO, toolConfig=BEDROCK_TOOLS)
    events = list(answer["stream"])
    assert [next(iter(event)) for event in events] == [
        "messageStart",
        "contentBlockDelta",
        "contentBlockStop",
        "contentBlockStart",
        "contentBlockDelta",
        "contentBlockStop",
        "messageStop",
        "metadata",
    ]
    assert events[3]["contentBlockStart"] == {
        "start": {"toolUse": {"toolUseId": "tooluse_1", "name": "weather"}},
        "contentBlockIndex": 1,
    }
    assert json.loads(events[4]["contentBlockDelta"]["delta"]["toolUse"]["input"]) == {"city": "Paris"}
    assert events[6]["messageStop"]["stopReason"] == "tool_use"


def test_tool_results_reach_the_engine(play):
    server, engine = play(tool_script)
    messages = [
        *HELLO,
        {
            "role": "assistant",
            "content": [{"toolUse": {"toolUseId": "t1", "name": "weather", "input": {"city": "Rome"}}}],
        },
        {
            "role": "user",
            "content": [
                {"toolResult": {"toolUseId": "t1", "content": [{"json": {"sky": "blue"}}], "status": "error"}},
                {"text": "and?"},
                {"cachePoint": {"type": "default"}},
            ],
        },
    ]
    server.boto3("bedrock-runtime").converse(modelId=MICRO, messages=messages, toolConfig=BEDROCK_TOOLS)
    _, call, result = engine.requests[0].messages
    assert call.content == (ToolUseBlock("t1", "weather", {"city": "Rome"}),)
    assert result.content == (
        ToolResultBlock("t1", (TextBlock('{"sky":"blue"}'),), is_error=True),
        TextBlock("and?"),
        CachePointBlock(),
    )


def test_openai_tool_calls_both_ways(play):
    server, engine = play(tool_script)
    messages = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": "weather?"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "a", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}},
                {"id": "b", "type": "function", "function": {"name": "weather", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "a", "content": "blue"},
        {"role": "tool", "tool_call_id": "b", "content": [{"type": "text", "text": "grey"}]},
    ]
    answer = server.openai.chat.completions.create(model="micro", messages=messages, tools=OPENAI_TOOLS)
    choice = answer.choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == "Let me look."
    assert choice.message.tool_calls[0].function.name == "weather"
    assert json.loads(choice.message.tool_calls[0].function.arguments) == {"city": "Paris"}
    system, _, calls, results = engine.requests[0].messages
    assert (system.role, system.text) == ("system", "be brief")
    assert [block.name for block in calls.content] == ["weather", "weather"]
    assert results.content == (
        ToolResultBlock("a", (TextBlock("blue"),)),
        ToolResultBlock("b", (TextBlock("grey"),)),
    )

    stream = server.openai.chat.completions.create(model="micro", messages=messages, tools=OPENAI_TOOLS, stream=True)
    deltas = [chunk.choices[0] for chunk in stream]
    assert deltas[0].delta.role == "assistant"
    assert deltas[2].delta.tool_calls[0].id == "tooluse_1"
    assert deltas[-1].finish_reason == "tool_calls"


def test_openai_joins_turns_of_one_role(play):
    server, engine = play(lambda request: [PromptProcessed(1), finished()])
    server.openai.chat.completions.create(
        model="micro",
        messages=[
            {"role": "user", "content": "a"},
            {"role": "user", "content": "b"},
            {"role": "assistant", "content": "c"},
        ],
        tools=OPENAI_TOOLS,
        tool_choice="none",
    )
    request = engine.requests[0]
    assert [(message.role, message.text) for message in request.messages] == [("user", "a\n\nb"), ("assistant", "c")]
    assert request.tools == ()


def test_defaults_and_overrides_of_sampling(play):
    server, engine = play(lambda request: [PromptProcessed(1), finished()])
    client = server.boto3("bedrock-runtime")
    client.converse(modelId=MICRO, messages=HELLO)
    client.converse(
        modelId=MICRO,
        messages=HELLO,
        inferenceConfig={"maxTokens": 10_000, "temperature": 0.0, "topP": 0.5, "stopSequences": ["END"]},
        additionalModelRequestFields={"inferenceConfig": {"topK": 20}},
    )
    default, given = (request.sampling for request in engine.requests)
    assert (default.max_tokens, default.temperature, default.top_p, default.top_k) == (None, 0.7, 0.9, 0)
    assert (given.max_tokens, given.temperature, given.top_p, given.top_k) == (10_000, 0.0, 0.5, 20)
    assert given.stop == ("END",)


@pytest.mark.parametrize(
    "config",
    [
        {"max_new_tokens": 9, "temperature": 0.1, "top_p": 0.2, "top_k": 3, "stop_sequences": ["x"]},
        {"maxTokens": 9, "temperature": 0.1, "topP": 0.2, "topK": 3, "stopSequences": ["x"]},
    ],
)
def test_native_body_in_both_spellings(play, config):
    server, engine = play(lambda request: [PromptProcessed(1), TextDelta("hi"), finished("max_tokens")])
    body = {
        "schemaVersion": "messages-v1",
        "system": [{"text": "s"}],
        "messages": [{"role": "user", "content": [{"text": "a", "cachePoint": {"type": "default"}}]}],
        "inferenceConfig": config,
    }
    answer = server.boto3("bedrock-runtime").invoke_model(modelId=MICRO, body=json.dumps(body))
    sampling = engine.requests[0].sampling
    assert (sampling.max_tokens, sampling.temperature, sampling.top_p, sampling.top_k) == (9, 0.1, 0.2, 3)
    assert sampling.stop == ("x",)
    assert json.loads(answer["body"].read()) == {
        "output": {"message": {"content": [{"text": "hi"}], "role": "assistant"}},
        "stopReason": "max_tokens",
        "usage": {
            "inputTokens": 5,
            "outputTokens": 3,
            "totalTokens": 8,
            "cacheReadInputTokenCount": 0,
            "cacheWriteInputTokenCount": 0,
        },
    }


def test_max_tokens_that_do_not_fit_shrink_on_bedrock_only(play):
    def script(request):
        if request.sampling.max_tokens is not None:
            return [ContextLengthExceeded("prompt and max_tokens exceed the context of 512", field="max_tokens")]
        return [PromptProcessed(1), TextDelta("ok"), finished()]

    server, _ = play(script)
    answer = server.boto3("bedrock-runtime").converse(
        modelId=MICRO, messages=HELLO, inferenceConfig={"maxTokens": 5000}
    )
    assert answer["output"]["message"]["content"][0]["text"] == "ok"
    with pytest.raises(openai.BadRequestError) as caught:
        server.openai.chat.completions.create(
            model="micro", messages=[{"role": "user", "content": "a"}], max_tokens=500
        )
    assert caught.value.code == "context_length_exceeded"
    assert caught.value.param == "max_tokens"


def test_a_fault_inside_a_bedrock_stream_is_an_exception_frame(play):
    server, engine = play(fault_script)
    client = server.boto3("bedrock-runtime")
    seen = []
    with pytest.raises(EventStreamError, match=r"modelStreamErrorException.*the step failed"):
        seen.extend(client.converse_stream(modelId=MICRO, messages=HELLO)["stream"])
    body = json.dumps({"messages": HELLO})
    with pytest.raises(EventStreamError, match="modelStreamErrorException"):
        list(client.invoke_model_with_response_stream(modelId=MICRO, body=body)["body"])
    assert not engine.running


def test_a_fault_inside_an_openai_stream_is_an_error_event(play):
    server, _ = play(fault_script)
    stream = server.openai.chat.completions.create(
        model="micro", messages=[{"role": "user", "content": "a"}], stream=True
    )
    texts = []
    with pytest.raises(openai.APIError, match="the step failed"):
        texts.extend(chunk.choices[0].delta.content for chunk in stream)
    stream = server.openai.completions.create(model="micro", prompt="a", stream=True)
    with pytest.raises(openai.APIError, match="the step failed"):
        list(stream)


@pytest.mark.parametrize("script", [early_fault_script, fault_script])
def test_a_fault_before_an_answer_has_a_status(play, script):
    server, _ = play(script)
    with pytest.raises(ClientError) as caught:
        server.boto3("bedrock-runtime").converse(modelId=MICRO, messages=HELLO)
    assert caught.value.response["Error"]["Code"] == "ModelErrorException"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 424
    with pytest.raises(openai.InternalServerError):
        server.openai.chat.completions.create(model="micro", messages=[{"role": "user", "content": "a"}])


def test_an_early_fault_of_a_stream_has_a_status(play):
    server, engine = play(early_fault_script)
    with pytest.raises(ClientError) as caught:
        server.boto3("bedrock-runtime").converse_stream(modelId=MICRO, messages=HELLO)
    assert caught.value.response["Error"]["Code"] == "ModelErrorException"
    assert not engine.running


def test_an_unforeseen_error_hides_its_text(play):
    server, _ = play(lambda request: [ZeroDivisionError("secret")])
    with pytest.raises(ClientError) as caught:
        server.boto3("bedrock-runtime").converse(modelId=MICRO, messages=HELLO)
    assert caught.value.response["Error"]["Code"] == "InternalServerException"
    assert "secret" not in str(caught.value)
    with pytest.raises(openai.InternalServerError) as failed:
        server.openai.completions.create(model="micro", prompt="a")
    assert "secret" not in str(failed.value)


def test_a_full_queue_asks_to_come_back(play):
    server, _ = play(lambda request: [Overloaded("256 requests wait")])
    with pytest.raises(ClientError) as caught:
        server.boto3("bedrock-runtime").converse(modelId=MICRO, messages=HELLO)
    assert caught.value.response["Error"]["Code"] == "ThrottlingException"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 429
    with pytest.raises(openai.RateLimitError):
        server.openai.chat.completions.create(model="micro", messages=[{"role": "user", "content": "a"}])


def test_a_refused_choice_cancels_the_others(play):
    count = 0

    def script(request):
        nonlocal count
        count += 1
        return [InvalidRequest("no more")] if count == 3 else [60.0, PromptProcessed(1), finished()]

    server, engine = play(script)
    with pytest.raises(openai.BadRequestError, match="no more"):
        server.openai.completions.create(model="micro", prompt="a", n=3)
    assert not engine.running


def slow_script(request):
    return [PromptProcessed(5), *(step for _ in range(200) for step in (TextDelta("x"), 0.05)), finished()]


def silent_script(request):
    return [30.0, PromptProcessed(5), finished()]


def wait_for(condition, seconds=5.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("path", ["converse", "converse-stream", "invoke", "invoke-with-response-stream"])
@pytest.mark.parametrize("script", [slow_script, silent_script])
def test_a_bedrock_client_that_leaves_frees_its_place(play, path, script):
    server, engine = play(script)
    host, port = server.url.removeprefix("http://").split(":")
    body = json.dumps({"messages": HELLO}).encode()
    with socket.create_connection((host, int(port))) as connection:
        head = f"POST /model/{MICRO}/{path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        wait_for(lambda: engine.running)
        time.sleep(0.1)
        assert engine.running
    wait_for(lambda: not engine.running)


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("stream", [False, True])
def test_an_openai_client_that_leaves_frees_its_places(play, stream, n):
    server, engine = play(slow_script)
    body = {"model": "micro", "messages": [{"role": "user", "content": "a"}], "stream": stream, "n": n}
    data = json.dumps(body).encode()
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(data)}\r\n\r\n"
        connection.sendall(head.encode() + data)
        wait_for(lambda: len(engine.running) == n)
    wait_for(lambda: not engine.running)


def test_choices_of_a_stream_come_interleaved(play):
    server, engine = play(lambda request: [PromptProcessed(5), TextDelta("a"), 0.02, TextDelta("b"), finished()])
    stream = server.openai.chat.completions.create(
        model="micro",
        messages=[{"role": "user", "content": "a"}],
        n=3,
        seed=7,
        stream=True,
        stream_options={"include_usage": True},
    )
    texts = {0: "", 1: "", 2: ""}
    order = []
    for chunk in stream:
        if chunk.choices:
            choice = chunk.choices[0]
            texts[choice.index] += choice.delta.content or ""
            order.append(choice.index)
        else:
            usage = chunk.usage
    assert texts == {0: "ab", 1: "ab", 2: "ab"}
    assert order != sorted(order)
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (5, 9, 14)
    assert [request.sampling.seed for request in engine.requests] == [7, 8, 9]


def test_log_probabilities_that_json_cannot_hold(play):
    token = TokenLogprob(1, "a", -0.5, (TokenLogprob(1, "a", -0.5), TokenLogprob(2, "\ufffd", -math.inf)))
    server, _ = play(lambda request: [PromptProcessed(5), TextDelta("a", (token,)), finished()])
    answer = server.openai.chat.completions.create(
        model="micro", messages=[{"role": "user", "content": "a"}], logprobs=True, top_logprobs=2
    )
    (entry,) = answer.choices[0].logprobs.content
    assert (entry.token, entry.logprob, entry.bytes) == ("a", -0.5, [97])
    assert entry.top_logprobs[1].logprob == -9999.0
    assert entry.top_logprobs[1].bytes is None


def test_a_silent_answer_is_one_empty_text_block(play):
    server, _ = play(lambda request: [PromptProcessed(5), finished(output=0)])
    client = server.boto3("bedrock-runtime")
    assert client.converse(modelId=MICRO, messages=HELLO)["output"]["message"]["content"] == [{"text": ""}]
    events = list(client.converse_stream(modelId=MICRO, messages=HELLO)["stream"])
    assert [next(iter(event)) for event in events] == [
        "messageStart",
        "contentBlockDelta",
        "contentBlockStop",
        "messageStop",
        "metadata",
    ]
    chat = server.openai.chat.completions.create(model="micro", messages=[{"role": "user", "content": "a"}])
    assert chat.choices[0].message.content == ""


def test_boto3_sessions_reuse_connections_after_errors(play):
    server, _ = play(lambda request: [PromptProcessed(5), TextDelta("ok"), finished()])
    client = boto3.client(
        "bedrock-runtime",
        endpoint_url=server.url,
        region_name="us-east-1",
        aws_access_key_id="x",
        aws_secret_access_key="y",
    )
    for _ in range(3):
        with pytest.raises(ClientError):
            client.converse(modelId="amazon.nova-unknown-v1:0", messages=HELLO)
        assert client.converse(modelId=MICRO, messages=HELLO)["stopReason"] == "end_turn"
