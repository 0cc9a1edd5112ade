"""Prompt caching: where cache points may stand, how long they hold, what they cost; and that CountTokens agrees."""

import itertools
import json

import pytest
from botocore.exceptions import ClientError

from kilonova.core.types import CachePointBlock, Finished, PromptProcessed, TextBlock, TextDelta, Usage

MICRO = "amazon.nova-micro-v1:0"
POINT = {"cachePoint": {"type": "default"}}
LONG = "the quick brown fox jumps over the lazy dog while seven wizards quietly vex a judge "


def user(*blocks):
    return {"role": "user", "content": [{"text": block} if isinstance(block, str) else block for block in blocks]}


def assistant(*blocks):
    return {**user(*blocks), "role": "assistant"}


def script(request):
    usage = Usage(100, 3, cache_read_input_tokens=32, cache_write_input_tokens=48)
    return [PromptProcessed(100), TextDelta("ok"), Finished("end_turn", usage, latency=0.25)]


def prompt_tokens(usage):
    return sum(
        count for name, count in usage.items() if name.startswith(("inputTokens", "cache")) and name != "cacheDetails"
    )


def test_points_reach_the_engine(play):
    server, engine = play(script)
    client = server.boto3("bedrock-runtime")
    hour = {"cachePoint": {"type": "default", "ttl": "1h"}}
    client.converse(
        modelId=MICRO,
        system=[{"text": "a"}, hour, {"text": "b"}],
        messages=[user("c", POINT), assistant("d", {"cachePoint": {"type": "default", "ttl": "5m"}}), user("e")],
    )
    native = {
        "system": [{"text": "a", **hour}, {"text": "b"}],
        "messages": [user({"text": "c", **POINT}), assistant({"text": "d", **POINT}), user("e")],
    }
    client.invoke_model(modelId=MICRO, body=json.dumps(native))
    for request in engine.requests:
        contents = [message.content for message in request.messages]
        assert contents == [
            (TextBlock("a"), CachePointBlock(3600), TextBlock("\nb")),
            (TextBlock("c"), CachePointBlock(300)),
            (TextBlock("d"), CachePointBlock(300)),
            (TextBlock("e"),),
        ]


@pytest.mark.parametrize(
    ("ttls", "details"),
    [
        (["1h"], [{"ttl": "1h", "inputTokens": 48}]),
        (["5m", "5m"], [{"ttl": "5m", "inputTokens": 48}]),
        (["1h", "5m"], None),
    ],
)
def test_counts_under_every_name(play, ttls, details):
    server, _ = play(script)
    client = server.boto3("bedrock-runtime")
    points = [block for ttl in ttls for block in ("text", {"cachePoint": {"type": "default", "ttl": ttl}})]
    messages = [user(*points)]
    expected = {
        "inputTokens": 20,
        "outputTokens": 3,
        "totalTokens": 103,
        "cacheReadInputTokens": 32,
        "cacheWriteInputTokens": 48,
    } | ({} if details is None else {"cacheDetails": details})
    answer = client.converse(modelId=MICRO, messages=messages)
    assert answer["usage"] == expected
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    names = ("input", "output", "cache-read-input", "cache-write-input")
    assert [headers[f"x-amzn-bedrock-{name}-token-count"] for name in names] == ["20", "3", "32", "48"]
    assert headers["x-amzn-bedrock-invocation-latency"] == "250"
    *_, last = client.converse_stream(modelId=MICRO, messages=messages)["stream"]
    assert last["metadata"]["usage"] == expected

    body = json.dumps({"messages": [user("text")]})
    native = json.loads(client.invoke_model(modelId=MICRO, body=body)["body"].read())["usage"]
    assert native == {
        "inputTokens": 20,
        "outputTokens": 3,
        "totalTokens": 103,
        "cacheReadInputTokenCount": 32,
        "cacheWriteInputTokenCount": 48,
    }
    *_, last = client.invoke_model_with_response_stream(modelId=MICRO, body=body)["body"]
    chunk = json.loads(last["chunk"]["bytes"])
    assert chunk["metadata"]["usage"] == native
    assert chunk["amazon-bedrock-invocationMetrics"] == {
        "inputTokenCount": 20,
        "outputTokenCount": 3,
        "invocationLatency": 250,
        "firstByteLatency": 0,
        "cacheReadInputTokenCount": 32,
        "cacheWriteInputTokenCount": 48,
    }


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"messages": [user(POINT)]}, "#/messages/0/content/0: extraneous key [cachePoint] is not permitted"),
        ({"system": [POINT], "messages": [user("a")]}, "#/system/0: extraneous key [cachePoint] is not permitted"),
        ({"messages": [user({"text": "a", "cachePoint": {"type": "big"}})]}, "cachePoint.type"),
        ({"messages": [user({"text": "a", "cachePoint": {"type": "default", "ttl": "2d"}})]}, "cachePoint.ttl"),
        ({"messages": [user(*[{"text": "a", **POINT}] * 5)]}, "at most 4 cachePoint blocks, and this one has 5"),
    ],
)
def test_native_points_refused(play, body, words):
    server, engine = play(script)
    status, headers, answer = server.post(f"/model/{MICRO}/invoke", body)
    assert (status, headers["x-amzn-errortype"]) == (400, "ValidationException")
    assert words in answer["message"]
    assert not engine.requests


def test_a_prefix_is_written_and_then_read(server):
    client = server.boto3("bedrock-runtime")
    request = {"modelId": "tiny", "inferenceConfig": {"maxTokens": 2}}
    system = [{"text": f"An unread rule. {LONG * 3}"}, POINT]
    first = client.converse(**request, system=system, messages=[user("one")])["usage"]
    second = client.converse(**request, system=system, messages=[user("a different question")])["usage"]
    assert first["cacheReadInputTokens"] == 0
    assert first["cacheWriteInputTokens"] >= 16
    assert first["cacheDetails"] == [{"ttl": "5m", "inputTokens": first["cacheWriteInputTokens"]}]
    assert second["cacheReadInputTokens"] == first["cacheWriteInputTokens"]
    assert second["cacheWriteInputTokens"] == 0
    assert "cacheDetails" not in second
    for usage in (first, second):
        assert usage["totalTokens"] == prompt_tokens(usage) + usage["outputTokens"]


def test_a_prefix_that_no_point_asked_for_is_not_told(server):
    client = server.boto3("bedrock-runtime")
    text = f"A rule of its own. {LONG * 3}"
    messages = [user({"text": text})]
    first, second = (
        client.converse(modelId="tiny", messages=messages, inferenceConfig={"maxTokens": 2})["usage"] for _ in range(2)
    )
    assert first == second
    assert (first["cacheReadInputTokens"], first["cacheWriteInputTokens"]) == (0, 0)
    counted = client.count_tokens(modelId="tiny", input={"converse": {"messages": messages}})["inputTokens"]
    assert first["inputTokens"] == counted
    # It was read all the same.
    answer = server.openai.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": text}], max_tokens=2
    )
    assert answer.usage.prompt_tokens_details.cached_tokens >= 16


TOOL = {"toolSpec": {"name": "f", "description": "d", "inputSchema": {"json": {"type": "object"}}}}
CALL = assistant("wait", {"toolUse": {"toolUseId": "x", "name": "f", "input": {"a": [1, None]}}})
RESULT = user({"toolResult": {"toolUseId": "x", "content": [{"json": {"b": "ü"}}, {"text": "c"}], "status": "error"}})


@pytest.mark.parametrize(
    ("system", "messages", "tools"),
    list(
        itertools.product(
            [[], [{"text": "be kind"}], [{"text": LONG * 2}, POINT, {"text": "be brief"}]],
            [
                [user("hello")],
                [user(LONG * 2, POINT, "and 素早い?"), assistant("jumps"), user("over")],
                [user("hello"), assistant("Well, the fox")],
                [user("a"), CALL, RESULT],
            ],
            [None, {"tools": [TOOL]}, {"tools": [TOOL], "toolChoice": {"any": {}}}],
        )
    ),
)
def test_count_tokens_is_what_is_billed(server, system, messages, tools):
    if tools is None and CALL in messages:
        pytest.skip("calls need tools")
    client = server.boto3("bedrock-runtime")
    members = {"messages": messages, "system": system} | ({"toolConfig": tools} if tools else {})
    own = {"inferenceConfig": {"topK": 3, "seed": 1}} | ({} if tools else {"grammar": {"choice": ["yes", "no"]}})
    counted = client.count_tokens(modelId="tiny", input={"converse": {**members, "additionalModelRequestFields": own}})
    billed = client.converse(
        modelId="tiny", **members, additionalModelRequestFields=own, inferenceConfig={"maxTokens": 1}
    )
    assert prompt_tokens(billed["usage"]) == counted["inputTokens"]


def test_counting_refuses_what_a_call_refuses(server):
    client = server.boto3("bedrock-runtime")
    for converse in (
        {},
        {"messages": [user("a"), user("b")]},
        {"messages": [user("a")], "toolConfig": {"tools": [POINT]}},
    ):
        with pytest.raises(ClientError, match="ValidationException"):
            client.count_tokens(modelId="tiny", input={"converse": converse})
