"""One sentence into several languages."""

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

for language in ("German", "French", "Spanish", "Italian", "Japanese"):
    response = bedrock.converse(
        modelId=MODEL,
        messages=[{"role": "user", "content": [{"text": f"Translate to {language}: Where is the station?"}]}],
        inferenceConfig={"maxTokens": 60, "temperature": 0},
    )
    print(f"{language}: {response['output']['message']['content'][0]['text']}")
