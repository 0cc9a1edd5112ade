"""A paragraph in a sentence or two."""

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

TEXT = """The harbour town had been losing its fishing boats for twenty years when the council decided to try something
new. It bought the empty ice house on the quay and offered its rooms, without rent for the first two years, to anyone
who would open a workshop. Within a summer there were eleven tenants, among them a boat builder, two weavers and a
maker of clocks. Visitors followed, then a cafe, and last year, for the first time since anyone could remember, the
school took in more children than the year before."""

response = bedrock.converse(
    modelId=MODEL,
    messages=[{"role": "user", "content": [{"text": f"Summarise the following text.\n\n{TEXT}"}]}],
    inferenceConfig={"maxTokens": 120, "temperature": 0},
)
summary = response["output"]["message"]["content"][0]["text"]
print(summary)
print(f"\n{len(TEXT.split())} words in, {len(summary.split())} words out")
