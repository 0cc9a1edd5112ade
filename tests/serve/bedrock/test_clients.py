"""Unmodified clients with tools and structured output, against a real server process with a random model."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest
from langchain_aws import ChatBedrockConverse
from langchain_core.messages import AIMessageChunk, HumanMessage, SystemMessage, ToolMessage
from pydantic import BaseModel
from tests.serve.conftest import run_server

MICRO = "amazon.nova-micro-v1:0"
QUESTION = {"role": "user", "content": [{"text": "What is the weather in Rome?"}]}
SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"enum": ["Rome", "Oslo", "Paris"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 9},
    },
    "required": ["city", "days"],
    "additionalProperties": False,
}
# A random model may go on calling until it has no tokens left: the seed is of answers that end.
SEEDED = {"inferenceConfig": {"seed": 1}}
TOOLS = {"tools": [{"toolSpec": {"name": "weather", "description": "d", "inputSchema": {"json": SCHEMA}}}]}


def check_input(value):
    assert set(value) == {"city", "days"}
    assert value["city"] in SCHEMA["properties"]["city"]["enum"]
    assert value["days"] in range(1, 10)


class Weather(BaseModel):
    """The weather of a city."""

    city: Literal["Rome", "Oslo", "Paris"]
    sunny: bool


@pytest.fixture(scope="module")
def micro(tiny_micro_directory, tmp_path_factory):
    """A server that answers to Micro's names with the random model."""
    with run_server(tmp_path_factory.mktemp("micro"), "--model", f"micro={tiny_micro_directory}") as running:
        yield running


@pytest.fixture(scope="module")
def chat(micro):
    return ChatBedrockConverse(
        model=MICRO,
        client=micro.boto3("bedrock-runtime"),
        bedrock_client=micro.boto3("bedrock"),
        region_name="eu-west-1",
        temperature=0.9,
        max_tokens=60,
        additional_model_request_fields=SEEDED,
    )


def test_a_tool_loop_with_boto3(micro):
    client = micro.boto3("bedrock-runtime")
    config = {**TOOLS, "toolChoice": {"any": {}}}
    limits = {"maxTokens": 200, "temperature": 1.0}
    messages = [QUESTION]
    answer = client.converse(
        modelId=MICRO,
        messages=messages,
        toolConfig=config,
        inferenceConfig=limits,
        additionalModelRequestFields=SEEDED,
    )
    assert answer["stopReason"] == "tool_use"
    message = answer["output"]["message"]
    uses = [block["toolUse"] for block in message["content"]]
    assert uses
    for use in uses:
        check_input(use["input"])
    results = [{"toolResult": {"toolUseId": use["toolUseId"], "content": [{"json": {"sky": "blue"}}]}} for use in uses]
    messages += [message, {"role": "user", "content": results[:1]}]
    messages[1]["content"] = messages[1]["content"][:1]
    answer = client.converse(modelId=MICRO, messages=messages, toolConfig=TOOLS, inferenceConfig={"maxTokens": 8})
    assert answer["output"]["message"]["role"] == "assistant"


def test_streamed_arguments_with_boto3(micro):
    config = {**TOOLS, "toolChoice": {"tool": {"name": "weather"}}}
    stream = micro.boto3("bedrock-runtime").converse_stream(
        modelId=MICRO, messages=[QUESTION], toolConfig=config, inferenceConfig={"maxTokens": 200}
    )
    events = list(stream["stream"])
    assert events[1]["contentBlockStart"]["start"]["toolUse"]["name"] == "weather"
    pieces = [event["contentBlockDelta"]["delta"]["toolUse"]["input"] for event in events[2:-3]]
    assert len(pieces) > 2
    check_input(json.loads("".join(pieces)))
    assert [next(iter(event)) for event in events[-3:]] == ["contentBlockStop", "messageStop", "metadata"]
    assert events[-2]["messageStop"]["stopReason"] == "tool_use"


def test_an_answer_that_fits_a_schema(micro):
    client = micro.boto3("bedrock-runtime")
    output = {"textFormat": {"type": "json_schema", "structure": {"jsonSchema": {"schema": json.dumps(SCHEMA)}}}}
    request = {"modelId": MICRO, "messages": [QUESTION], "inferenceConfig": {"maxTokens": 100, "temperature": 1.0}}
    answer = client.converse(**request, outputConfig=output)
    check_input(json.loads(answer["output"]["message"]["content"][0]["text"]))
    own = {"grammar": {"choice": ["yes", "no"]}, "inferenceConfig": {"seed": 3}}
    answer = client.converse(**request, additionalModelRequestFields=own)
    assert answer["output"]["message"]["content"][0]["text"] in ("yes", "no")
    body = {"messages": [QUESTION], "grammar": {"regex": "[0-9]{3}"}, "inferenceConfig": {"max_new_tokens": 20}}
    body = json.loads(client.invoke_model(modelId=MICRO, body=json.dumps(body))["body"].read())
    assert len(body["output"]["message"]["content"][0]["text"]) == 3


def test_the_aws_command_line_with_tools(micro):
    config = {**TOOLS, "toolChoice": {"any": {}}}
    arguments = ["--messages", json.dumps([QUESTION]), "--tool-config", json.dumps(config)]
    command = [str(Path(sys.executable).with_name("aws")), "bedrock-runtime", "converse", "--model-id", MICRO]
    command += [*arguments, "--endpoint-url", micro.url, "--region", "us-east-1", "--output", "json"]
    keys = {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local", "AWS_CONFIG_FILE": "/nonexistent"}
    result = subprocess.run(command, env={**os.environ, **keys}, capture_output=True, timeout=120)
    assert result.returncode == 0, result.stderr.decode()
    check_input(json.loads(result.stdout)["output"]["message"]["content"][0]["toolUse"]["input"])


def test_langchain_invoke_and_stream(chat):
    messages = [SystemMessage("be kind"), HumanMessage("tell me about the fox")]
    answer = chat.invoke(messages)
    assert isinstance(answer.content, str)
    usage = answer.usage_metadata
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    assert 1 <= usage["output_tokens"] <= 60
    assert answer.response_metadata["stopReason"] in ("max_tokens", "end_turn")
    chunks = list(chat.stream(messages))
    assert len(chunks) > 2
    whole = chunks[0]
    for chunk in chunks[1:]:
        assert isinstance(chunk, AIMessageChunk)
        whole += chunk
    # Twice the same prompt: its tokens are counted whether they were read from the cache or not.
    assert whole.usage_metadata["input_tokens"] == usage["input_tokens"]


def test_langchain_tools(chat):
    asked = HumanMessage("what is the weather in Rome?")
    bound = chat.bind_tools([Weather], tool_choice="any")
    answer = bound.invoke([asked])
    assert answer.tool_calls
    for call in answer.tool_calls:
        assert call["name"] == "Weather"
        Weather.model_validate(call["args"])
    whole = None
    for chunk in bound.stream([asked]):
        whole = chunk if whole is None else whole + chunk
    Weather.model_validate(whole.tool_calls[0]["args"])
    results = [ToolMessage("blue", tool_call_id=call["id"]) for call in answer.tool_calls]
    final = chat.bind_tools([Weather]).invoke([asked, answer, *results])
    assert final.usage_metadata["input_tokens"] > answer.usage_metadata["input_tokens"]


def test_langchain_structured_output(chat):
    for method in ("function_calling", "json_schema"):
        found = chat.with_structured_output(Weather, method=method).invoke("what is the weather in Rome?")
        assert isinstance(found, Weather)


def test_langchain_with_the_arn_of_an_inference_profile(micro):
    chat = ChatBedrockConverse(
        model="arn:aws:bedrock:eu-west-1:123456789012:application-inference-profile/micro",
        provider="amazon",
        client=micro.boto3("bedrock-runtime"),
        bedrock_client=micro.boto3("bedrock"),
        region_name="eu-west-1",
        max_tokens=4,
    )
    assert chat.base_model_id == MICRO
    assert chat.invoke("hello").usage_metadata["output_tokens"] <= 4
