"""A conversation that outgrows its limit keeps its beginning and its newest turns."""

import os

import boto3

from kilonova.text.managed_conversation import ManagedConversation

bedrock = boto3.client(
    "bedrock-runtime",
    endpoint_url=os.environ.get("KILONOVA_ENDPOINT", "http://127.0.0.1:8080"),
    region_name="us-east-1",
    aws_access_key_id="local",
    aws_secret_access_key="local",
)
MODEL = "amazon.nova-micro-v1:0"
QUESTIONS = (
    "My name is Ada and I live in Turin.",
    "I collect old clocks. What is a good way to clean brass?",
    "My favourite clock was made in 1892.",
    "Name three cities in Italy.",
    "What is seven times eight?",
    "What is my name?",
)

conversation = ManagedConversation.for_bedrock(bedrock, MODEL, limit=140, strategy="sliding_window")
for question in QUESTIONS:
    conversation.add({"role": "user", "content": [{"text": question}]})
    messages = conversation.fit()
    response = bedrock.converse(modelId=MODEL, messages=messages, inferenceConfig={"maxTokens": 60, "temperature": 0})
    conversation.add(response["output"]["message"])
    print(f"user: {question}")
    print(f"assistant: {response['output']['message']['content'][0]['text']}")
    report = conversation.report
    print(f"sent {len(messages)} turn(s), dropped {report.dropped_messages} ({report.dropped_tokens} tokens)\n")
