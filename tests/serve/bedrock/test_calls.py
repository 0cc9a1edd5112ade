"""What a request says about itself, and the errors of answers that have begun."""

import json

import pytest
from botocore.exceptions import ClientError, EventStreamError

from kilonova.core.errors import EngineError, Overloaded, RequestTimeout, Throttled, Unavailable
from kilonova.core.types import Finished, PromptProcessed, TextDelta, Usage
from kilonova.serve.gateway import Gateway

MICRO = "amazon.nova-micro-v1:0"
HELLO = [{"role": "user", "content": [{"text": "hello"}]}]
BODY = json.dumps({"messages": HELLO})


def script(request):
    return [PromptProcessed(5), TextDelta("ok"), Finished("end_turn", Usage(5, 3))]


@pytest.fixture
def calls(monkeypatch):
    """The calls that were handed to the engine."""
    seen = []
    submit = Gateway.submit

    async def record(self, call, *arguments, **keywords):
        seen.append(call)
        return await submit(self, call, *arguments, **keywords)

    monkeypatch.setattr(Gateway, "submit", record)
    return seen


@pytest.mark.parametrize(
    ("tier", "expected"),
    [(None, "default"), ("priority", "priority"), ("flex", "flex"), ("reserved", "priority"), ("default", "default")],
)
def test_tiers_and_metadata(play, calls, tier, expected):
    server, engine = play(script)
    client = server.boto3("bedrock-runtime")
    metadata = {"team": "a b", "cost:centre": "7"}
    tiers = {} if tier is None else {"serviceTier": {"type": tier}}
    answer = client.converse(modelId=MICRO, messages=HELLO, requestMetadata=metadata, **tiers)
    assert answer.get("serviceTier") == tiers.get("serviceTier")
    answer = client.converse_stream(modelId=MICRO, messages=HELLO, requestMetadata=metadata, **tiers)
    assert list(answer["stream"])[-1]["metadata"].get("serviceTier") == tiers.get("serviceTier")
    tiers = {} if tier is None else {"serviceTier": tier}
    answer = client.invoke_model(modelId=MICRO, body=BODY, requestMetadata=json.dumps(metadata), **tiers)
    assert answer.get("serviceTier") == tier
    answer = client.invoke_model_with_response_stream(modelId=MICRO, body=BODY, **tiers)
    assert answer.get("serviceTier") == tier
    list(answer["body"])
    assert [request.service_tier for request in engine.requests] == [expected] * 4
    assert [call.service_tier for call in calls] == [expected] * 4
    assert [call.metadata for call in calls] == [metadata] * 3 + [{}]
    assert [call.operation for call in calls] == [
        "Converse",
        "ConverseStream",
        "InvokeModel",
        "InvokeModelWithResponseStream",
    ]


@pytest.mark.parametrize(
    ("metadata", "named"),
    [
        ("{", "requestMetadata"),
        ("[]", "requestMetadata"),
        ('{"a": 1}', "requestMetadata.a"),
        ('{"\\u2620": "a"}', "key"),
    ],
)
def test_metadata_refused(play, metadata, named):
    server, _ = play(script)
    with pytest.raises(ClientError, match=f"ValidationException.*{named}"):
        server.boto3("bedrock-runtime").invoke_model(modelId=MICRO, body=BODY, requestMetadata=metadata)


@pytest.mark.parametrize(
    "arguments",
    [
        {"guardrailIdentifier": "abc", "guardrailVersion": "1"},
        {"trace": "LOUD"},
        {"performanceConfigLatency": "fast"},
        {"serviceTier": "first"},
    ],
)
def test_headers_refused(play, arguments):
    server, _ = play(script)
    with pytest.raises(ClientError, match=f"ValidationException.*{next(iter(arguments))}"):
        server.boto3("bedrock-runtime").invoke_model(modelId=MICRO, body=BODY, **arguments)


FAULTS = [
    (EngineError("it broke"), 424, "ModelErrorException", "modelStreamErrorException", "modelStreamErrorException"),
    (Throttled("no more", retry_after=7), 429, "ThrottlingException", "throttlingException", "throttlingException"),
    (Overloaded("full"), 429, "ThrottlingException", "throttlingException", "throttlingException"),
    (
        Unavailable("stopping"),
        503,
        "ServiceUnavailableException",
        "serviceUnavailableException",
        "serviceUnavailableException",
    ),
    (RequestTimeout("slow"), 408, "ModelTimeoutException", "modelStreamErrorException", "modelTimeoutException"),
    (ZeroDivisionError("secret"), 500, "InternalServerException", "internalServerException", "internalServerException"),
]


@pytest.mark.parametrize(("error", "status", "code", "in_converse", "in_invoke"), FAULTS)
def test_faults_before_and_in_the_answer(play, calls, error, status, code, in_converse, in_invoke):
    server, engine = play(lambda request: [PromptProcessed(5), TextDelta("so"), error])
    client = server.boto3("bedrock-runtime")
    for ask in (
        lambda: client.converse(modelId=MICRO, messages=HELLO),
        lambda: client.invoke_model(modelId=MICRO, body=BODY),
    ):
        with pytest.raises(ClientError) as caught:
            ask()
        response = caught.value.response
        assert (response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]) == (code, status)
        assert "secret" not in response["Error"]["Message"]
    for stream, name in (
        (client.converse_stream(modelId=MICRO, messages=HELLO)["stream"], in_converse),
        (client.invoke_model_with_response_stream(modelId=MICRO, body=BODY)["body"], in_invoke),
    ):
        events = []
        with pytest.raises(EventStreamError) as failed:
            events.extend(stream)
        assert failed.value.response["Error"]["Code"] == name
        assert "secret" not in str(failed.value)
    assert [call.error for call in calls] == [code] * 4
    assert not engine.running
