"""boto3 and the AWS command line against a real server process with a random model."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
GREEDY = {"maxTokens": 8, "temperature": 0.0}


def user(text):
    return {"role": "user", "content": [{"text": text}]}


def assistant(text):
    return {"role": "assistant", "content": [{"text": text}]}


def prompt_tokens(usage):
    """The whole prompt: Bedrock counts what was in the prefix cache apart."""
    return sum(usage[name] for name in usage if name.startswith(("inputTokens", "cache")))


@pytest.fixture
def runtime(server):
    return server.boto3("bedrock-runtime")


def test_converse(runtime):
    answer = runtime.converse(
        modelId="tiny",
        messages=[user("hello")],
        system=[{"text": "be kind"}],
        inferenceConfig=GREEDY,
        performanceConfig={"latency": "standard"},
        serviceTier={"type": "default"},
        requestMetadata={"team": "a"},
        additionalModelResponseFieldPaths=["/stopReason", "/usage/inputTokens", "/nothing/here"],
    )
    message = answer["output"]["message"]
    assert message["role"] == "assistant"
    assert isinstance(message["content"][0]["text"], str)
    assert answer["stopReason"] in ("max_tokens", "end_turn")
    usage = answer["usage"]
    assert usage["totalTokens"] == prompt_tokens(usage) + usage["outputTokens"]
    assert 1 <= usage["outputTokens"] <= 8
    assert answer["performanceConfig"] == {"latency": "standard"}
    assert answer["serviceTier"] == {"type": "default"}
    assert answer["additionalModelResponseFields"] == {
        "stopReason": answer["stopReason"],
        "usage": {"inputTokens": usage["inputTokens"]},
    }
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    assert UUID.fullmatch(answer["ResponseMetadata"]["RequestId"])
    assert headers["x-amzn-bedrock-input-token-count"] == str(usage["inputTokens"])
    assert headers["x-amzn-bedrock-output-token-count"] == str(usage["outputTokens"])
    assert int(headers["x-amzn-bedrock-invocation-latency"]) == answer["metrics"]["latencyMs"]
    assert headers["x-amzn-bedrock-cache-read-input-token-count"] == str(usage["cacheReadInputTokens"])
    assert headers["x-amzn-bedrock-cache-write-input-token-count"] == "0"


def test_stream_equals_the_whole_answer(runtime):
    request = {
        "modelId": "tiny",
        "messages": [user("tell me")],
        "inferenceConfig": {"maxTokens": 24, "temperature": 0.0},
    }
    whole = runtime.converse(**request)
    answer = runtime.converse_stream(**request, additionalModelResponseFieldPaths=["/stopReason"])
    assert answer["ResponseMetadata"]["HTTPHeaders"]["content-type"] == "application/vnd.amazon.eventstream"
    events = list(answer["stream"])
    names = [next(iter(event)) for event in events]
    deltas = len(names) - 4
    assert names == ["messageStart", *["contentBlockDelta"] * deltas, "contentBlockStop", "messageStop", "metadata"]
    text = "".join(event["contentBlockDelta"]["delta"]["text"] for event in events[1 : 1 + deltas])
    assert text == whole["output"]["message"]["content"][0]["text"]
    assert events[0]["messageStart"] == {"role": "assistant"}
    assert events[-2]["messageStop"] == {
        "stopReason": whole["stopReason"],
        "additionalModelResponseFields": {"stopReason": whole["stopReason"]},
    }
    usage = events[-1]["metadata"]["usage"]
    assert prompt_tokens(usage) == prompt_tokens(whole["usage"])
    assert usage["totalTokens"] == whole["usage"]["totalTokens"]
    assert events[-1]["metadata"]["metrics"]["latencyMs"] >= 0


def test_invoke_model_and_its_stream(runtime):
    body = {"messages": [user("tell me")], "inferenceConfig": {"max_new_tokens": 24, "temperature": 0}}
    answer = runtime.invoke_model(modelId="tiny", body=json.dumps(body), performanceConfigLatency="standard")
    assert answer["contentType"] == "application/json"
    assert answer["performanceConfigLatency"] == "standard"
    whole = json.loads(answer["body"].read())
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    assert headers["x-amzn-bedrock-input-token-count"] == str(whole["usage"]["inputTokens"])
    converse = runtime.converse(
        modelId="tiny", messages=[user("tell me")], inferenceConfig={"maxTokens": 24, "temperature": 0.0}
    )
    assert whole["output"]["message"]["content"] == converse["output"]["message"]["content"]
    assert headers["x-amzn-bedrock-cache-read-input-token-count"] == str(whole["usage"]["cacheReadInputTokenCount"])

    stream = runtime.invoke_model_with_response_stream(modelId="tiny", body=json.dumps(body))
    assert stream["contentType"] == "application/json"
    chunks = [json.loads(event["chunk"]["bytes"]) for event in stream["body"]]
    assert chunks[0] == {"messageStart": {"role": "assistant"}}
    text = "".join(chunk["contentBlockDelta"]["delta"]["text"] for chunk in chunks if "contentBlockDelta" in chunk)
    assert text == whole["output"]["message"]["content"][0]["text"]
    assert chunks[-3] == {"contentBlockStop": {"contentBlockIndex": 0}}
    assert chunks[-2] == {"messageStop": {"stopReason": whole["stopReason"]}}
    usage = chunks[-1]["metadata"]["usage"]
    assert usage["totalTokens"] == whole["usage"]["totalTokens"]
    assert prompt_tokens(usage) == prompt_tokens(whole["usage"])
    metrics = chunks[-1]["amazon-bedrock-invocationMetrics"]
    assert metrics["inputTokenCount"] == usage["inputTokens"]
    assert metrics["outputTokenCount"] == usage["outputTokens"]
    assert metrics["cacheReadInputTokenCount"] == usage["cacheReadInputTokenCount"]
    assert metrics["firstByteLatency"] <= metrics["invocationLatency"]


def test_a_prefilled_answer_is_continued(runtime):
    request = {"modelId": "tiny", "inferenceConfig": GREEDY}
    plain = runtime.converse(messages=[user("say")], **request)
    prefilled = runtime.converse(messages=[user("say"), assistant("Well, the fox")], **request)
    assert prompt_tokens(prefilled["usage"]) > prompt_tokens(plain["usage"])


def test_a_stop_sequence_ends_the_answer(runtime):
    request = {"modelId": "tiny", "messages": [user("tell me")]}
    whole = runtime.converse(**request, inferenceConfig={"maxTokens": 32, "temperature": 0.0})
    text = whole["output"]["message"]["content"][0]["text"]
    stop = text[4:6]
    answer = runtime.converse(
        **request, inferenceConfig={"maxTokens": 32, "temperature": 0.0, "stopSequences": [stop, "never said"]}
    )
    assert answer["stopReason"] == "stop_sequence"
    assert answer["output"]["message"]["content"][0]["text"] == text[: text.index(stop)]


def test_an_answer_ends_where_the_context_does(runtime):
    answer = runtime.converse(
        modelId="tiny", messages=[user("hello")], inferenceConfig={"maxTokens": 10_000, "temperature": 0.0}
    )
    assert answer["usage"]["totalTokens"] <= 512


def test_count_tokens_is_what_is_billed(runtime):
    messages = [user("the quick brown fox — 素早い"), assistant("jumps"), user("over")]
    system = [{"text": "be kind"}]
    tools = {"tools": [{"toolSpec": {"name": "f", "description": "d", "inputSchema": {"json": {"type": "object"}}}}]}
    billed = runtime.converse(
        modelId="tiny", messages=messages, system=system, toolConfig=tools, inferenceConfig=GREEDY
    )
    counted = runtime.count_tokens(
        modelId="tiny", input={"converse": {"messages": messages, "system": system, "toolConfig": tools}}
    )
    assert counted["inputTokens"] == prompt_tokens(billed["usage"])
    body = json.dumps({"messages": messages, "system": system, "toolConfig": tools})
    native = runtime.count_tokens(modelId="tiny", input={"invokeModel": {"body": body}})
    assert native["inputTokens"] == counted["inputTokens"]


def test_list_and_get_foundation_models(server):
    control = server.boto3("bedrock")
    summaries = {summary["modelId"]: summary for summary in control.list_foundation_models()["modelSummaries"]}
    tiny = summaries["tiny"]
    assert tiny["modelArn"] == "arn:aws:bedrock:eu-west-1::foundation-model/tiny"
    assert tiny["inputModalities"] == tiny["outputModalities"] == ["TEXT"]
    assert tiny["responseStreamingSupported"] is True
    assert tiny["inferenceTypesSupported"] == ["ON_DEMAND"]
    assert tiny["modelLifecycle"] == {"status": "ACTIVE"}
    assert control.get_foundation_model(modelIdentifier="tiny")["modelDetails"] == tiny
    provider = tiny["providerName"]

    def listed(**filters):
        return [summary["modelId"] for summary in control.list_foundation_models(**filters)["modelSummaries"]]

    assert "tiny" in listed(byProvider=provider.upper(), byOutputModality="TEXT", byInferenceType="ON_DEMAND")
    assert "tiny" not in listed(byProvider="Nobody")
    assert "tiny" not in listed(byOutputModality="IMAGE")
    assert "tiny" not in listed(byInferenceType="PROVISIONED")
    assert "tiny" not in listed(byCustomizationType="FINE_TUNING")
    with pytest.raises(ClientError) as caught:
        listed(byOutputModality="FILM")
    assert caught.value.response["Error"]["Code"] == "ValidationException"
    assert "byOutputModality" in str(caught.value)
    with pytest.raises(ClientError) as caught:
        control.get_foundation_model(modelIdentifier="amazon.nova-unknown-v1:0")
    assert caught.value.response["Error"]["Code"] == "ResourceNotFoundException"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 404


def test_the_aws_command_line(server):
    command = [
        str(Path(sys.executable).with_name("aws")),
        "bedrock-runtime",
        "converse",
        "--endpoint-url",
        server.url,
        "--model-id",
        "tiny",
        "--messages",
        json.dumps([user("hello")]),
        "--inference-config",
        "maxTokens=4,temperature=0",
        "--region",
        "us-east-1",
        "--output",
        "json",
    ]
    environment = {
        **os.environ,
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "AWS_CONFIG_FILE": "/nonexistent",
    }
    result = subprocess.run(command, env=environment, capture_output=True, timeout=120)
    assert result.returncode == 0, result.stderr.decode()
    assert json.loads(result.stdout)["usage"]["outputTokens"] <= 4


def test_leaving_a_stream_frees_its_place(server, runtime):
    server.wait_until_idle()
    answer = runtime.converse_stream(
        modelId="tiny", messages=[user("hello")], inferenceConfig={"maxTokens": 480, "temperature": 1.0}
    )
    stream = iter(answer["stream"])
    next(stream)
    next(stream)
    answer["stream"].close()
    started = time.monotonic()
    server.wait_until_idle(5)
    assert time.monotonic() - started < 5


def test_requests_run_together(server, runtime):
    from concurrent.futures import ThreadPoolExecutor

    request = {"modelId": "tiny", "inferenceConfig": {"maxTokens": 16, "temperature": 0.0}}
    prompts = [f"tell me about {number}" for number in range(6)]
    alone = [runtime.converse(messages=[user(prompt)], **request)["output"] for prompt in prompts]
    with ThreadPoolExecutor(6) as pool:
        together = list(
            pool.map(lambda prompt: runtime.converse(messages=[user(prompt)], **request)["output"], prompts)
        )
    assert together == alone
