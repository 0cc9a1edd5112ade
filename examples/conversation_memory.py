"""A conversation: the model remembers nothing by itself, so every request carries the turns before it."""

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

messages = []
for question in ("My name is Ada and I live in Turin.", "What is my name?"):
    messages.append({"role": "user", "content": [{"text": question}]})
    response = bedrock.converse(modelId=MODEL, messages=messages, inferenceConfig={"maxTokens": 60, "temperature": 0})
    sent = " | ".join(f"{turn['role']}: {turn['content'][0]['text']}" for turn in messages)
    print(f"sent {len(messages)} turn(s), {response['usage']['inputTokens']} tokens: {sent}")
    print(f"answer: {response['output']['message']['content'][0]['text']}\n")
    messages.append(response["output"]["message"])
