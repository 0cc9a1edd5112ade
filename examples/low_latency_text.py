"""A short question and a short answer, streamed: what counts is the time until the first words appear."""

import os
import time

import boto3

bedrock = boto3.client(
    "bedrock-runtime",
    endpoint_url=os.environ.get("KILONOVA_ENDPOINT", "http://127.0.0.1:8080"),
    region_name="us-east-1",
    aws_access_key_id="local",
    aws_secret_access_key="local",
)
MODEL = "amazon.nova-micro-v1:0"

started = time.perf_counter()
response = bedrock.converse_stream(
    modelId=MODEL,
    messages=[{"role": "user", "content": [{"text": "Name three fruits."}]}],
    inferenceConfig={"maxTokens": 60, "temperature": 0},
    performanceConfig={"latency": "optimized"},
)
first_text = None
for event in response["stream"]:
    if "contentBlockDelta" in event:
        first_text = first_text or time.perf_counter() - started
        print(event["contentBlockDelta"]["delta"]["text"], end="", flush=True)
    elif "metadata" in event:
        usage, latency = event["metadata"]["usage"], event["metadata"]["metrics"]["latencyMs"]
print(f"\n\nfirst text after {first_text * 1000:.0f} ms, {usage['outputTokens']} tokens in {latency} ms")
