"""Inference profiles and availability, through boto3."""

import pytest
from botocore.exceptions import ClientError

MICRO = "amazon.nova-micro-v1:0"


@pytest.fixture
def control(play):
    server, _ = play(lambda request: [])
    return server.boto3("bedrock")


def test_profiles_are_listed_in_pages(control):
    profiles = control.list_inference_profiles()["inferenceProfileSummaries"]
    assert [profile["inferenceProfileId"] for profile in profiles] == [f"eu.{MICRO}", f"global.{MICRO}"]
    first = profiles[0]
    assert first["inferenceProfileArn"] == f"arn:aws:bedrock:eu-west-1:000000000000:inference-profile/eu.{MICRO}"
    assert first["models"] == [{"modelArn": f"arn:aws:bedrock:eu-west-1::foundation-model/{MICRO}"}]
    assert (first["status"], first["type"]) == ("ACTIVE", "SYSTEM_DEFINED")
    pages = control.get_paginator("list_inference_profiles").paginate(PaginationConfig={"PageSize": 1})
    assert [page["inferenceProfileSummaries"] for page in pages] == [[profile] for profile in profiles]
    assert control.list_inference_profiles(typeEquals="APPLICATION")["inferenceProfileSummaries"] == []


@pytest.mark.parametrize(
    ("identifier", "profile_id", "kind"),
    [
        ("us.tiny", "us.tiny", "SYSTEM_DEFINED"),
        ("arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.tiny", "us.tiny", "SYSTEM_DEFINED"),
        ("arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/tiny", "tiny", "APPLICATION"),
    ],
)
def test_a_profile_by_id_and_arn(server, identifier, profile_id, kind):
    profile = server.boto3("bedrock").get_inference_profile(inferenceProfileIdentifier=identifier)
    assert (profile["inferenceProfileId"], profile["type"]) == (profile_id, kind)
    assert profile["models"][0]["modelArn"].endswith("foundation-model/tiny")
    messages = [{"role": "user", "content": [{"text": "hello"}]}]
    answer = server.boto3("bedrock-runtime").converse(
        modelId=profile["inferenceProfileArn"], messages=messages, inferenceConfig={"maxTokens": 2}
    )
    assert answer["usage"]["outputTokens"] <= 2


@pytest.mark.parametrize("identifier", [MICRO, "us.amazon.nova-nano-v1:0"])
def test_profiles_that_are_not_there(control, identifier):
    with pytest.raises(ClientError) as caught:
        control.get_inference_profile(inferenceProfileIdentifier=identifier)
    assert caught.value.response["Error"]["Code"] == "ResourceNotFoundException"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 404


@pytest.mark.parametrize(
    ("arguments", "named"),
    [({"maxResults": 0}, "maxResults"), ({"nextToken": "x"}, "nextToken"), ({"typeEquals": "OTHER"}, "typeEquals")],
)
def test_faulty_listings_are_refused(control, arguments, named):
    with pytest.raises(ClientError, match=f"ValidationException.*{named}"):
        control.list_inference_profiles(**arguments)


def test_availability(control):
    answer = control.get_foundation_model_availability(modelId=MICRO)
    assert answer["modelId"] == MICRO
    assert answer["agreementAvailability"] == {"status": "AVAILABLE"}
    assert answer["authorizationStatus"] == "AUTHORIZED"
    assert answer["entitlementAvailability"] == answer["regionAvailability"] == "AVAILABLE"
    with pytest.raises(ClientError) as caught:
        control.get_foundation_model_availability(modelId="amazon.nova-nano-v1:0")
    assert caught.value.response["Error"]["Code"] == "ResourceNotFoundException"
