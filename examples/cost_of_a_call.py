"""What a call costs: the tokens it used times the published price of a token.

The prices are the ones published for Amazon Nova Micro on demand; your own machine charges you nothing.
"""

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

USD_PER_1K_INPUT_TOKENS = 0.000035
USD_PER_1K_OUTPUT_TOKENS = 0.00014

response = bedrock.converse(
    modelId=MODEL,
    messages=[{"role": "user", "content": [{"text": "Write one sentence about the sea."}]}],
    inferenceConfig={"maxTokens": 60},
)
usage = response["usage"]
cost = (usage["inputTokens"] * USD_PER_1K_INPUT_TOKENS + usage["outputTokens"] * USD_PER_1K_OUTPUT_TOKENS) / 1000
print(response["output"]["message"]["content"][0]["text"])
print(f"\ninput tokens:  {usage['inputTokens']}")
print(f"output tokens: {usage['outputTokens']}")
print(f"cost: {cost:.9f} USD")
