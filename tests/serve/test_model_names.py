"""Every name a client may use for a model, resolved and on the wire."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from kilonova.core.errors import ModelNotFound
from kilonova.serve.models import ModelServer

MICRO = "amazon.nova-micro-v1:0"
NAMES = [
    "micro",
    MICRO,
    f"{MICRO}:128k",
    f"us.{MICRO}",
    f"eu.{MICRO}",
    f"apac.{MICRO}",
    f"global.{MICRO}",
    f"arn:aws:bedrock:us-east-1::foundation-model/{MICRO}",
    f"arn:aws:bedrock:us-east-1::foundation-model/{MICRO}:128k",
    f"arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.{MICRO}",
    f"arn:aws-us-gov:bedrock:us-gov-west-1::foundation-model/{MICRO}",
]
UNKNOWN = [
    "",
    "nano",
    "us.micro2",
    "amazon.nova-micro-v1",
    f"{MICRO}:big",
    f"xx.{MICRO}",
    f"us.us.{MICRO}",
    f"arn:aws:bedrock:us-east-1:123456789012:custom-model/{MICRO}",
    f"arn:aws:s3:us-east-1::foundation-model/{MICRO}",
]


class OneEntry:
    """A registry of one entry."""

    entry = SimpleNamespace(name="micro", aliases=(MICRO,))

    def entries(self):
        return (self.entry,)

    def get(self, name):
        if name in ("micro", MICRO):
            return self.entry
        raise ModelNotFound(f"no model {name!r}")


@pytest.mark.parametrize("name", NAMES)
def test_known_names(name):
    assert ModelServer(OneEntry()).resolve(name) is OneEntry.entry


@pytest.mark.parametrize("name", UNKNOWN)
def test_unknown_names(name):
    with pytest.raises(ModelNotFound):
        ModelServer(OneEntry()).resolve(name)


@pytest.mark.parametrize(
    "identifier",
    [
        "tiny",
        "us.tiny",
        "arn:aws:bedrock:us-east-1::foundation-model/tiny",
        "arn%3Aaws%3Abedrock%3Aus-east-1%3A%3Afoundation-model%2Ftiny",
        "arn:aws:bedrock:us-east-1::foundation-model%2Ftiny",
        "arn:aws:bedrock:us-east-1:123456789012:inference-profile/eu.tiny",
    ],
)
def test_raw_and_encoded_paths(server, identifier):
    body = {"messages": [{"role": "user", "content": [{"text": "hi"}]}], "inferenceConfig": {"maxTokens": 1}}
    status, headers, answer = server.post(f"/model/{identifier}/converse", body)
    assert status == 200, answer
    assert headers["x-amzn-requestid"]


def test_boto3_with_an_arn(server):
    answer = server.boto3("bedrock-runtime").converse(
        modelId="arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.tiny",
        messages=[{"role": "user", "content": [{"text": "hi"}]}],
        inferenceConfig={"maxTokens": 1},
    )
    assert answer["usage"]["outputTokens"] == 1
