"""Labels without examples: the prompt lists what to choose from, and the answer is one of them."""

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


def classify(instruction: str, text: str) -> str:
    """The label the model gives `text`."""
    response = bedrock.converse(
        modelId=MODEL,
        messages=[{"role": "user", "content": [{"text": f"{instruction}\n\n{text}"}]}],
        inferenceConfig={"maxTokens": 20, "temperature": 0},
    )
    return response["output"]["message"]["content"][0]["text"].strip()


for review in ("A warm, funny film that I would gladly see again.", "Two dull hours I will never get back."):
    print(f"{review} -> {classify('What is the sentiment? Answer positive or negative.', review)}")
for message in ("My card has not arrived yet.", "How do I change my PIN?", "What is the exchange rate for euros?"):
    intents = "card arrival, change pin, exchange rate, lost or stolen card"
    print(f"{message} -> {classify(f'Classify the message into one of these intents: {intents}', message)}")
