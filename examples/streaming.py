"""An answer as it is written: each event carries the next few characters."""

import os

import boto3

bedrock = boto3.client(
    "bedrock-runtime",
    endpoint_url=os.environ.get("KILONOVA_ENDPOINT", "http://127.0.0.1:8080"),
    region_name="us-east-1",
    aws_access_key_id="local",
    aws_secret_access_key="local",
)
MODEL = "amazon.nova-micro-v1:0"

response = bedrock.converse_stream(
    modelId=MODEL,
    messages=[{"role": "user", "content": [{"text": "Tell me a short story about a fox."}]}],
    inferenceConfig={"maxTokens": 120},
)
chunks = 0
for event in response["stream"]:
    if "contentBlockDelta" in event:
        chunks += 1
        print(event["contentBlockDelta"]["delta"]["text"], end="", flush=True)
    elif "messageStop" in event:
        print(f"\n\nstopped: {event['messageStop']['stopReason']}, after {chunks} chunks")
