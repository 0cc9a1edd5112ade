"""Tools and structured output through Converse, its stream and the models' own JSON; the engine plays a script."""

import json

import pytest
from botocore.exceptions import ClientError

from kilonova.core.errors import InvalidRequest
from kilonova.core.types import (
    Finished,
    Grammar,
    NamedTool,
    PromptProcessed,
    TextBlock,
    TextDelta,
    Tool,
    ToolInputDelta,
    ToolResultBlock,
    ToolUse,
    ToolUseBlock,
    ToolUseStart,
    Usage,
)

MICRO = "amazon.nova-micro-v1:0"
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
SPECIFICATION = {"name": "weather", "description": "d", "inputSchema": {"json": SCHEMA}}
TOOLS = {"tools": [{"toolSpec": SPECIFICATION}, {"toolSpec": {**SPECIFICATION, "name": "time", "strict": True}}]}
QUESTION = {"role": "user", "content": [{"text": "What is the weather in Rome and in Oslo?"}]}


def finished(reason="end_turn"):
    return Finished(reason, Usage(5, 3), time_to_first_token=0.01, latency=0.25)


def call(number, city):
    pieces = ['{"ci', f'ty": "{city}"', "}"]
    block = ToolUseBlock(f"tooluse_{number}", "weather", {"city": city})
    return [ToolUseStart(block.id, block.name), *map(ToolInputDelta, pieces), ToolUse(block)]


def weather_script(request):
    """Calls the tool twice, and answers with the results once they are there."""
    results = [block for block in request.messages[-1].content if isinstance(block, ToolResultBlock)]
    if results:
        said = ", ".join(result.content[0].text for result in results)
        return [PromptProcessed(5), TextDelta("It is "), TextDelta(said), finished()]
    return [PromptProcessed(5), TextDelta("Let me look."), *call(1, "Rome"), *call(2, "Oslo"), finished("tool_use")]


def read_stream(events):
    """The message that a stream's events make up, put together as a client does, and why it ended."""
    blocks, reason = [], ""
    for event in events:
        ((name, value),) = event.items()
        if name == "contentBlockStart":
            assert value["contentBlockIndex"] == len(blocks)
            blocks.append({"toolUse": {**value["start"]["toolUse"], "input": ""}})
        elif name == "contentBlockDelta":
            if value["contentBlockIndex"] == len(blocks):
                blocks.append({"text": ""})
            delta = value["delta"]
            if "text" in delta:
                blocks[-1]["text"] += delta["text"]
            else:
                blocks[-1]["toolUse"]["input"] += delta["toolUse"]["input"]
        elif name == "contentBlockStop":
            assert value["contentBlockIndex"] == len(blocks) - 1
            if "toolUse" in blocks[-1]:
                blocks[-1]["toolUse"]["input"] = json.loads(blocks[-1]["toolUse"]["input"])
        elif name == "messageStop":
            reason = value["stopReason"]
    return {"role": "assistant", "content": blocks}, reason


def whole(client, messages):
    answer = client.converse(modelId=MICRO, messages=messages, toolConfig=TOOLS)
    return answer["output"]["message"], answer["stopReason"]


def streamed(client, messages):
    return read_stream(client.converse_stream(modelId=MICRO, messages=messages, toolConfig=TOOLS)["stream"])


def invoked(client, messages):
    answer = client.invoke_model(modelId=MICRO, body=json.dumps({"messages": messages, "toolConfig": TOOLS}))
    body = json.loads(answer["body"].read())
    return body["output"]["message"], body["stopReason"]


def invoked_stream(client, messages):
    body = json.dumps({"messages": messages, "tool_config": TOOLS})
    stream = client.invoke_model_with_response_stream(modelId=MICRO, body=body)["body"]
    chunks = [json.loads(event["chunk"]["bytes"]) for event in stream]
    assert chunks[-1]["amazon-bedrock-invocationMetrics"]["outputTokenCount"] == 3
    return read_stream(chunks[:-1])


@pytest.mark.parametrize("ask", [whole, streamed, invoked, invoked_stream])
def test_a_tool_loop(play, ask):
    server, engine = play(weather_script)
    client = server.boto3("bedrock-runtime")
    messages = [QUESTION]
    message, reason = ask(client, messages)
    assert reason == "tool_use"
    assert message["content"] == [
        {"text": "Let me look."},
        {"toolUse": {"toolUseId": "tooluse_1", "name": "weather", "input": {"city": "Rome"}}},
        {"toolUse": {"toolUseId": "tooluse_2", "name": "weather", "input": {"city": "Oslo"}}},
    ]
    results = [
        {"toolResult": {"toolUseId": "tooluse_2", "content": [{"json": {"sky": "grey"}}], "status": "error"}},
        {"toolResult": {"toolUseId": "tooluse_1", "content": [{"text": "blue"}]}},
    ]
    messages += [message, {"role": "user", "content": results}]
    message, reason = ask(client, messages)
    assert (message["content"], reason) == ([{"text": 'It is {"sky":"grey"}, blue'}], "end_turn")
    _, calls, answers = engine.requests[1].messages
    assert calls.content[1:] == (
        ToolUseBlock("tooluse_1", "weather", {"city": "Rome"}),
        ToolUseBlock("tooluse_2", "weather", {"city": "Oslo"}),
    )
    assert answers.content[0] == ToolResultBlock("tooluse_2", (TextBlock('{"sky":"grey"}'),), is_error=True)
    assert engine.requests[0].tools == (Tool("weather", "d", SCHEMA), Tool("time", "d", SCHEMA, strict=True))


def test_arguments_are_streamed_as_they_come(play):
    server, _ = play(weather_script)
    stream = server.boto3("bedrock-runtime").converse_stream(modelId=MICRO, messages=[QUESTION], toolConfig=TOOLS)
    events = list(stream["stream"])
    assert [next(iter(event)) for event in events[:8]] == [
        "messageStart",
        "contentBlockDelta",
        "contentBlockStop",
        "contentBlockStart",
        "contentBlockDelta",
        "contentBlockDelta",
        "contentBlockDelta",
        "contentBlockStop",
    ]
    assert events[3]["contentBlockStart"] == {
        "start": {"toolUse": {"toolUseId": "tooluse_1", "name": "weather"}},
        "contentBlockIndex": 1,
    }
    pieces = [event["contentBlockDelta"]["delta"]["toolUse"]["input"] for event in events[4:7]]
    assert pieces == ['{"ci', 'ty": "Rome"', "}"]


def test_a_call_that_is_cut_off(play):
    script = [PromptProcessed(5), ToolUseStart("t", "weather"), ToolInputDelta('{"ci'), finished("max_tokens")]
    server, _ = play(lambda request: script)
    client = server.boto3("bedrock-runtime")
    events = list(client.converse_stream(modelId=MICRO, messages=[QUESTION], toolConfig=TOOLS)["stream"])
    assert [next(iter(event)) for event in events] == [
        "messageStart",
        "contentBlockStart",
        "contentBlockDelta",
        "contentBlockStop",
        "messageStop",
        "metadata",
    ]
    assert events[4]["messageStop"]["stopReason"] == "max_tokens"
    answer = client.converse(modelId=MICRO, messages=[QUESTION], toolConfig=TOOLS)
    assert answer["output"]["message"]["content"] == [{"text": ""}]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, "auto"),
        ({"auto": {}}, "auto"),
        ({"any": {}}, "required"),
        ({"tool": {"name": "time"}}, NamedTool("time")),
    ],
)
def test_tool_choices(play, choice, expected):
    server, engine = play(lambda request: [PromptProcessed(5), finished()])
    config = TOOLS if choice is None else {**TOOLS, "toolChoice": choice}
    client = server.boto3("bedrock-runtime")
    client.converse(modelId=MICRO, messages=[QUESTION], toolConfig=config)
    client.invoke_model(modelId=MICRO, body=json.dumps({"messages": [QUESTION], "toolConfig": config}))
    assert [request.tool_choice for request in engine.requests] == [expected, expected]


def output_config(schema):
    return {"textFormat": {"type": "json_schema", "structure": {"jsonSchema": {"schema": json.dumps(schema)}}}}


@pytest.mark.parametrize(
    ("member", "expected"),
    [
        ({"jsonSchema": SCHEMA}, Grammar("json_schema", SCHEMA)),
        ({"jsonObject": {}}, Grammar("json_object")),
        ({"regex": "[a-c]+"}, Grammar("regex", "[a-c]+")),
        ({"choice": ["yes", "no"]}, Grammar("choice", ("yes", "no"))),
        ({"lark": 'start: "a"'}, Grammar("lark", 'start: "a"')),
    ],
)
def test_grammars(play, member, expected):
    server, engine = play(lambda request: [PromptProcessed(5), finished()])
    client = server.boto3("bedrock-runtime")
    client.converse(modelId=MICRO, messages=[QUESTION], additionalModelRequestFields={"grammar": member})
    client.invoke_model(modelId=MICRO, body=json.dumps({"messages": [QUESTION], "grammar": member}))
    assert [request.grammar for request in engine.requests] == [expected, expected]


def test_a_schema_for_the_answer(play):
    server, engine = play(lambda request: [PromptProcessed(5), TextDelta('{"city":"Rome"}'), finished()])
    client = server.boto3("bedrock-runtime")
    answer = client.converse(modelId=MICRO, messages=[QUESTION], outputConfig=output_config(SCHEMA))
    assert json.loads(answer["output"]["message"]["content"][0]["text"]) == {"city": "Rome"}
    client.converse(modelId=MICRO, messages=[QUESTION], outputConfig=output_config(SCHEMA), toolConfig=TOOLS)
    assert [request.grammar for request in engine.requests] == [Grammar("json_schema", SCHEMA)] * 2


@pytest.mark.parametrize(
    ("core_field", "members", "named"),
    [
        ("grammar", {"outputConfig": output_config(SCHEMA)}, "outputConfig.textFormat.structure.jsonSchema.schema"),
        (
            "grammar",
            {"additionalModelRequestFields": {"grammar": {"regex": "("}}},
            "additionalModelRequestFields.grammar",
        ),
        ("tools.1.parameters", {"toolConfig": TOOLS}, "toolConfig.tools.1.toolSpec.inputSchema.json"),
        (
            "logit_bias",
            {"additionalModelRequestFields": {"inferenceConfig": {"logitBias": {"999999": 1}}}},
            "additionalModelRequestFields.inferenceConfig.logitBias",
        ),
        ("stop.1", {"inferenceConfig": {"stopSequences": ["a", "b"]}}, "inferenceConfig.stopSequences.1"),
    ],
)
def test_what_the_engine_refuses_is_named_as_on_the_wire(play, core_field, members, named):
    server, _ = play(lambda request: [InvalidRequest("it does not do", field=core_field)])
    with pytest.raises(ClientError) as caught:
        server.boto3("bedrock-runtime").converse(modelId=MICRO, messages=[QUESTION], **members)
    assert caught.value.response["Error"] == {"Code": "ValidationException", "Message": f"it does not do ({named})"}


def test_own_parameters_in_both_spellings(play):
    server, engine = play(lambda request: [PromptProcessed(5), finished()])
    client = server.boto3("bedrock-runtime")
    camel = {"topK": 5, "seed": 7, "minP": 0.1, "presencePenalty": 1, "frequencyPenalty": -1, "logitBias": {"5": 2.5}}
    snake = {
        "top_k": 5,
        "seed": 7,
        "min_p": 0.1,
        "presence_penalty": 1,
        "frequency_penalty": -1,
        "logit_bias": {"5": 2.5},
    }
    for config in (camel, snake):
        own = {"inferenceConfig": {**config, "repetitionPenalty": 1.1}}
        client.converse(modelId=MICRO, messages=[QUESTION], additionalModelRequestFields=own)
        client.invoke_model(modelId=MICRO, body=json.dumps({"messages": [QUESTION], **own}))
    for request in engine.requests:
        sampling = request.sampling
        assert (sampling.top_k, sampling.seed, sampling.min_p, sampling.repetition_penalty) == (5, 7, 0.1, 1.1)
        assert (sampling.presence_penalty, sampling.frequency_penalty) == (1, -1)
        assert sampling.logit_bias == {5: 2.5}
