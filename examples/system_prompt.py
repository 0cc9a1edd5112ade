"""The same question under two system prompts."""

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

for system in ("You translate everything the user writes into French.", "Answer in one short sentence."):
    response = bedrock.converse(
        modelId=MODEL,
        system=[{"text": system}],
        messages=[{"role": "user", "content": [{"text": "What do cats eat?"}]}],
        inferenceConfig={"maxTokens": 60, "temperature": 0},
    )
    print(f"system: {system}")
    print(f"answer: {response['output']['message']['content'][0]['text']}\n")
