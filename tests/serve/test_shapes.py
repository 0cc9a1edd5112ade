"""Validators compiled from botocore's service models."""

import base64
import json
from datetime import UTC, datetime

import pytest

from kilonova.serve.bedrock.shapes import MalformedBody, Service, ShapeViolation


@pytest.fixture(scope="module")
def runtime() -> Service:
    return Service("bedrock-runtime", ("Converse", "ConverseStream", "InvokeModel", "CountTokens"))


@pytest.fixture(scope="module")
def control() -> Service:
    return Service("bedrock", ("ListFoundationModels", "GetFoundationModel"))


def parse(service: Service, operation: str, body: dict, **parts) -> dict:
    parts.setdefault("uri", {"modelId": "amazon.nova-micro-v1:0"})
    return service[operation].parse(json.dumps(body).encode(), **parts)


def turn(*blocks: dict, role: str = "user") -> dict:
    return {"messages": [{"role": role, "content": list(blocks)}]}


def test_a_right_request_passes_unchanged(runtime):
    body = turn({"text": "hi"}) | {
        "system": [{"text": "be kind"}, {"cachePoint": {"type": "default"}}],
        "inferenceConfig": {"maxTokens": 5, "temperature": 0, "topP": 1.0, "stopSequences": ["x"]},
        "additionalModelRequestFields": {"anything": [1, {"goes": None}]},
        "requestMetadata": {"team": "a b"},
    }
    assert parse(runtime, "Converse", body) == body | {"modelId": "amazon.nova-micro-v1:0"}


@pytest.mark.parametrize(
    ("body", "field", "constraint"),
    [
        ({"inferenceConfig": {"temperature": -0.5}}, "inferenceConfig.temperature", "greater than or equal to 0"),
        ({"inferenceConfig": {"temperature": 1.5}}, "inferenceConfig.temperature", "less than or equal to 1"),
        ({"inferenceConfig": {"maxTokens": 0}}, "inferenceConfig.maxTokens", "greater than or equal to 1"),
        ({"inferenceConfig": {"maxTokens": 1.5}}, "inferenceConfig.maxTokens", "must be an integer"),
        ({"inferenceConfig": {"maxTokens": True}}, "inferenceConfig.maxTokens", "must be an integer"),
        ({"inferenceConfig": {"topP": "high"}}, "inferenceConfig.topP", "must be a number"),
        ({"inferenceConfig": {"stopSequences": [""]}}, "inferenceConfig.stopSequences.1.member", "length greater"),
        ({"inferenceConfig": {"stopSequences": "x"}}, "inferenceConfig.stopSequences", "must be a list"),
        ({"inferenceConfig": {"stopSequences": ["x"] * 2501}}, "inferenceConfig.stopSequences", "length less"),
        ({"inferenceConfig": {"max_tokens": 3}}, "inferenceConfig.max_tokens", "did you mean 'maxTokens'"),
        ({"inferenceConfig": 3}, "inferenceConfig", "must be an object"),
        ({"mesages": []}, "mesages", "did you mean 'messages'"),
        (turn({"text": "a"}, role="bob"), "messages.1.member.role", "enum value set: [user, assistant, system]"),
        ({"messages": [{"role": "user"}]}, "messages.1.member.content", "must not be null"),
        ({"messages": [None]}, "messages.1.member", "must not be null"),
        (turn({}), "messages.1.member.content.1.member", "exactly one of [text, image"),
        (
            turn({"text": "a", "cachePoint": {"type": "default"}}),
            "messages.1.member.content.1.member",
            "exactly one of",
        ),
        (
            turn({"image": {"format": "bmp", "source": {"bytes": "AAAA"}}}),
            "messages.1.member.content.1.member.image.format",
            "[png, jpeg, gif, webp]",
        ),
        (
            turn({"image": {"format": "png", "source": {"bytes": "not base64!"}}}),
            "messages.1.member.content.1.member.image.source.bytes",
            "base64",
        ),
        (
            {"toolConfig": {"tools": []}},
            "toolConfig.tools",
            "length greater than or equal to 1",
        ),
        (
            {"toolConfig": {"tools": [{"toolSpec": {"name": "a b", "inputSchema": {"json": {}}}}]}},
            "toolConfig.tools.1.member.toolSpec.name",
            "regular expression pattern: [a-zA-Z0-9_-]+",
        ),
        ({"requestMetadata": {}}, "requestMetadata", "length greater than or equal to 1"),
        ({"serviceTier": {"type": "fast"}}, "serviceTier.type", "priority, default, flex"),
        ({"additionalModelResponseFieldPaths": ["/x"] * 11}, "additionalModelResponseFieldPaths", "length less"),
    ],
)
def test_violations_name_the_field_and_the_constraint(runtime, body, field, constraint):
    with pytest.raises(ShapeViolation) as caught:
        parse(runtime, "Converse", body)
    assert caught.value.field == field
    assert str(caught.value).startswith("1 validation error detected: ")
    assert f"at '{field}' failed to satisfy constraint" in str(caught.value)
    assert constraint in str(caught.value)


def test_wording_of_a_range(runtime):
    with pytest.raises(ShapeViolation) as caught:
        parse(runtime, "Converse", {"inferenceConfig": {"temperature": -0.5}})
    assert str(caught.value) == (
        "1 validation error detected: Value '-0.5' at 'inferenceConfig.temperature' failed to satisfy constraint: "
        "Member must have value greater than or equal to 0"
    )


def test_all_violations_are_reported_together(runtime):
    with pytest.raises(ShapeViolation, match=r"^2 validation errors detected: .*temperature.*; .*maxTokens"):
        parse(runtime, "Converse", {"inferenceConfig": {"temperature": 9, "maxTokens": -1}})


def test_many_violations_make_a_bounded_message(runtime):
    with pytest.raises(ShapeViolation, match=r"^5000 validation errors") as caught:
        parse(runtime, "Converse", {"messages": [{"role": "user", "content": [{}] * 5000}]})
    assert len(str(caught.value)) < 20_000


def test_blobs_are_decoded(runtime):
    data = bytes(range(256))
    block = {"image": {"format": "png", "source": {"bytes": base64.b64encode(data).decode()}}}
    parsed = parse(runtime, "Converse", turn(block))
    assert parsed["messages"][0]["content"][0]["image"]["source"]["bytes"] == data
    counted = parse(runtime, "CountTokens", {"input": {"invokeModel": {"body": base64.b64encode(b"{}").decode()}}})
    assert counted["input"]["invokeModel"]["body"] == b"{}"


def test_null_is_a_document_too(runtime):
    block = {"toolResult": {"toolUseId": "x", "content": [{"json": None}]}}
    parsed = parse(runtime, "Converse", turn(block))
    assert parsed["messages"][0]["content"] == [block]


def test_nulls_are_absent_members(runtime):
    assert "inferenceConfig" not in parse(runtime, "Converse", {"inferenceConfig": None})


@pytest.mark.parametrize("body", [b"{", b"[]", b"3", b"\xff\xfe", b"[" * 5000, b'{"a": NaN}'])
def test_bodies_that_are_not_json_objects(runtime, body):
    with pytest.raises(MalformedBody):
        runtime["Converse"].parse(body, uri={"modelId": "a.b"})


def test_headers_and_payload(runtime):
    parsed = runtime["InvokeModel"].parse(
        b"\x00anything",
        uri={"modelId": "a.b"},
        headers={"x-amzn-bedrock-trace": "ENABLED", "content-type": "application/json"},
    )
    assert parsed == {
        "modelId": "a.b",
        "trace": "ENABLED",
        "contentType": "application/json",
        "body": b"\x00anything",
    }
    with pytest.raises(ShapeViolation, match="'trace'"):
        runtime["InvokeModel"].parse(b"", uri={"modelId": "a.b"}, headers={"x-amzn-bedrock-trace": "loud"})
    with pytest.raises(ShapeViolation, match="Value null at 'modelId'"):
        runtime["InvokeModel"].parse(b"", headers={})


def test_query_parameters(control):
    query = {"byProvider": "Amazon", "byOutputModality": "TEXT"}
    assert control["ListFoundationModels"].parse(b"", query=query) == query
    with pytest.raises(ShapeViolation, match=r"'byOutputModality'.*\[TEXT, IMAGE, EMBEDDING\]"):
        control["ListFoundationModels"].parse(b"", query={"byOutputModality": "FILM"})


def test_writers_encode_and_check(runtime, control):
    write = runtime["ConverseStream"].events["contentBlockDelta"]
    assert write({"delta": {"reasoningContent": {"redactedContent": b"\x00\x01"}}, "contentBlockIndex": 0}) == {
        "delta": {"reasoningContent": {"redactedContent": "AAE="}},
        "contentBlockIndex": 0,
    }
    with pytest.raises(KeyError):
        write({"delta": {"txt": "a"}, "contentBlockIndex": 0})
    with pytest.raises(ValueError, match="contentBlockIndex"):
        write({"delta": {"text": "a"}})
    lifecycle = {"status": "ACTIVE", "startOfLifeTime": datetime(2024, 12, 3, tzinfo=UTC)}
    summary = {"modelArn": "arn", "modelId": "m", "modelLifecycle": lifecycle, "modelName": None}
    written = json.loads(control["ListFoundationModels"].write({"modelSummaries": [summary]}))
    assert written["modelSummaries"][0]["modelLifecycle"]["startOfLifeTime"] == "2024-12-03T00:00:00Z"
    assert "modelName" not in written["modelSummaries"][0]


def test_statuses_come_from_the_model(runtime):
    assert runtime.statuses["ValidationException"] == 400
    assert runtime.statuses["ThrottlingException"] == 429
    assert runtime.statuses["ModelErrorException"] == 424
