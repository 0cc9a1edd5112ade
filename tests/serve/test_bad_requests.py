"""What both protocols refuse, and how: by status, error type, and the name of the field at fault."""

import base64
import json
import socket
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
from botocore.exceptions import ClientError

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)
TOOL = {"toolSpec": {"name": "f", "description": "d", "inputSchema": {"json": {"type": "object"}}}}


def user(*blocks):
    return {"role": "user", "content": [{"text": block} if isinstance(block, str) else block for block in blocks]}


def assistant(*blocks):
    return {**user(*blocks), "role": "assistant"}


def converse(server, **request):
    """The error of a Converse request, checked to be the same in a stream and in the native body where it exists."""
    client = server.boto3("bedrock-runtime")
    request.setdefault("messages", [user("hi")])
    errors = []
    for operation in (client.converse, client.converse_stream):
        with pytest.raises(ClientError) as caught:
            operation(modelId="tiny", **request)
        errors.append(caught.value.response)
    whole, streamed = errors
    assert whole["Error"] == streamed["Error"]
    assert whole["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert whole["Error"]["Code"] == "ValidationException"
    assert whole["ResponseMetadata"]["RequestId"] != streamed["ResponseMetadata"]["RequestId"]
    return whole["Error"]["Message"]


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"messages": []}, ["messages"]),
        ({"messages": [user("a"), user("b")]}, ["must alternate between user and assistant roles", "messages.1.role"]),
        ({"messages": [assistant("a")]}, ["must start with a user message", "messages.0.role"]),
        ({"messages": [user("a"), assistant("b"), assistant("c")]}, ["must alternate", "messages.2.role"]),
        ({"messages": [user()]}, ["messages.0", "content", "is empty"]),
        ({"messages": [user(" \n")]}, ["The text field in the ContentBlock object at messages.0.content.0 is blank"]),
        ({"messages": [user("a", "")]}, ["messages.0.content.1 is blank"]),
        ({"messages": [{"role": "system", "content": [{"text": "a"}]}]}, ["messages.0.role", "system"]),
        ({"system": [{"text": "  "}]}, ["system.0"]),
        (
            {"messages": [user("see", {"image": {"format": "png", "source": {"bytes": PNG}}})]},
            ["messages.0.content.1.image", "doesn't support"],
        ),
        (
            {"messages": [user({"document": {"format": "txt", "name": "n", "source": {"text": "t"}}})]},
            ["messages.0.content.0.document", "doesn't support"],
        ),
        (
            {"messages": [user({"video": {"format": "mp4", "source": {"s3Location": {"uri": "s3://bucket/a.mp4"}}}})]},
            ["messages.0.content.0.video"],
        ),
        (
            {"messages": [user({"image": {"format": "bmp", "source": {"bytes": PNG}}})]},
            ["image.format", "[png, jpeg, gif, webp]"],
        ),
        ({"messages": [user("word " * 3000)]}, ["Input is too long"]),
        ({"inferenceConfig": {"temperature": -0.5}}, ["'inferenceConfig.temperature'", "greater than or equal to 0"]),
        ({"inferenceConfig": {"temperature": 1.5}}, ["'inferenceConfig.temperature'", "less than or equal to 1"]),
        ({"inferenceConfig": {"topP": 1.5}}, ["'inferenceConfig.topP'", "less than or equal to 1"]),
        ({"inferenceConfig": {"maxTokens": 10_001}}, ["inferenceConfig.maxTokens", "10000"]),
        ({"toolConfig": {"tools": [TOOL], "toolChoice": {"tool": {"name": "g"}}}}, ["toolConfig.toolChoice.tool.name"]),
        (
            {"toolConfig": {"tools": [TOOL, {"cachePoint": {"type": "default"}}]}},
            ["#/toolConfig/tools/1: extraneous key [cachePoint] is not permitted"],
        ),
        (
            {"toolConfig": {"tools": [{"toolSpec": {"name": "f", "inputSchema": {"json": {"type": "array"}}}}]}},
            ["toolConfig.tools.0.toolSpec.inputSchema.json.type must be one of the following: object."],
        ),
        ({"toolConfig": {"tools": [TOOL, TOOL]}}, ["'f' twice"]),
        ({"guardrailConfig": {"guardrailIdentifier": "abc", "guardrailVersion": "1"}}, ["guardrailConfig"]),
        ({"promptVariables": {"a": {"text": "b"}}}, ["promptVariables"]),
        (
            {"outputConfig": {"textFormat": {"type": "json_schema", "structure": {"jsonSchema": {"schema": "{"}}}}},
            ["outputConfig.textFormat.structure.jsonSchema.schema", "not JSON"],
        ),
        (
            {"outputConfig": {"textFormat": {"type": "json_schema", "structure": {"jsonSchema": {"schema": "[]"}}}}},
            ["outputConfig.textFormat.structure.jsonSchema.schema", "JSON schema object"],
        ),
        ({"outputConfig": {"effort": "high"}}, ["outputConfig.effort"]),
        (
            {
                "outputConfig": {"textFormat": {"type": "json_schema", "structure": {"jsonSchema": {"schema": "{}"}}}},
                "additionalModelRequestFields": {"grammar": {"jsonObject": {}}},
            },
            ["outputConfig.textFormat", "additionalModelRequestFields.grammar"],
        ),
        ({"additionalModelRequestFields": [1]}, ["additionalModelRequestFields", "a JSON object"]),
        (
            {"additionalModelRequestFields": {"topK": 3}},
            ["#: extraneous key [topK]", "additionalModelRequestFields.topK"],
        ),
        ({"additionalModelRequestFields": {"inferenceConfig": {"topK": 129}}}, ["inferenceConfig.topK", "128"]),
        (
            {"additionalModelRequestFields": {"inferenceConfig": {"topk": 1}}},
            ["#/inferenceConfig: extraneous key [topk]"],
        ),
        ({"additionalModelRequestFields": {"inferenceConfig": {"seed": -1}}}, ["inferenceConfig.seed"]),
        ({"additionalModelRequestFields": {"inferenceConfig": {"minP": 2}}}, ["inferenceConfig.minP"]),
        ({"additionalModelRequestFields": {"inferenceConfig": {"presencePenalty": 9}}}, ["presencePenalty"]),
        ({"additionalModelRequestFields": {"inferenceConfig": {"repetition_penalty": 0}}}, ["repetition_penalty"]),
        ({"additionalModelRequestFields": {"inferenceConfig": {"logitBias": {"a": 1}}}}, ["logitBias", "token ids"]),
        ({"additionalModelRequestFields": {"inferenceConfig": {"logitBias": {"5": 101}}}}, ["logitBias.5", "100"]),
        ({"additionalModelRequestFields": {"inferenceConfig": {"topK": 1, "top_k": 1}}}, ["given twice"]),
        (
            {"additionalModelRequestFields": {"inferenceConfig": {"topK": 1}, "inference_config": {"topK": 1}}},
            ["additionalModelRequestFields.inference_config", "given twice"],
        ),
        ({"additionalModelRequestFields": {"grammar": {"xml": 1}}}, ["grammar", "jsonSchema"]),
        ({"additionalModelRequestFields": {"grammar": {"regex": ""}}}, ["grammar.regex"]),
        ({"additionalModelRequestFields": {"grammar": {"choice": []}}}, ["grammar.choice"]),
        (
            {"additionalModelResponseFieldPaths": ["stopReason"]},
            ["additionalModelResponseFieldPaths.0", "JSON pointer"],
        ),
        (
            {"messages": [user({"cachePoint": {"type": "default"}})]},
            ["#/messages/0/content/0: extraneous key [cachePoint]"],
        ),
        ({"system": [{"cachePoint": {"type": "default"}}]}, ["#/system/0: extraneous key [cachePoint]"]),
        (
            {"messages": [user(*["a", {"cachePoint": {"type": "default"}}] * 5)]},
            ["cachePoint", "at most 4", "5"],
        ),
        ({"messages": [user("a", {"cachePoint": {"type": "default", "ttl": "9m"}})]}, ["cachePoint.ttl", "[5m, 1h]"]),
        (
            {
                "messages": [
                    user("a"),
                    assistant({"toolUse": {"toolUseId": "x", "name": "f", "input": {}}}),
                    user(
                        {"toolResult": {"toolUseId": "x", "content": [{"text": "r"}]}},
                        {"cachePoint": {"type": "default"}},
                    ),
                ],
                "toolConfig": {"tools": [TOOL]},
            },
            ["#/messages/2/content/1: extraneous key [cachePoint] is not permitted, please reformat your input"],
        ),
        ({"additionalModelResponseFieldPaths": ["/a~b"]}, ["additionalModelResponseFieldPaths.0"]),
        (
            {"messages": [user({"toolResult": {"toolUseId": "x", "content": [{"text": "r"}]}})]},
            ["messages.0.content.0", "'x'"],
        ),
        (
            {
                "messages": [
                    user("a"),
                    assistant({"toolUse": {"toolUseId": "x", "name": "f", "input": {}}}),
                    user("no result"),
                ],
                "toolConfig": {"tools": [TOOL]},
            },
            ["Ids: x"],
        ),
        (
            {
                "messages": [
                    user("a"),
                    assistant({"toolUse": {"toolUseId": "x", "name": "f", "input": {}}}),
                    user({"toolResult": {"toolUseId": "x", "content": [{"text": "r"}]}}),
                ]
            },
            ["toolConfig field must be defined"],
        ),
    ],
)
def test_converse_refuses(server, request_, words):
    message = converse(server, **request_)
    for word in words:
        assert word in message


def raw(server, path, body):
    status, headers, answer = server.post(path, body)
    assert headers["x-amzn-requestid"]
    return status, headers.get("x-amzn-errortype"), answer["message"]


@pytest.mark.parametrize("identifier", ["nova", "amazon.nova-unknown-v1:0", "a%2Fb%20c", "arn:aws:s3:::bucket"])
def test_unknown_models(server, identifier):
    for path in ("converse", "converse-stream", "invoke", "count-tokens"):
        body = {"messages": [user("hi")]} if path != "count-tokens" else {"input": {"converse": {}}}
        assert raw(server, f"/model/{identifier}/{path}", body) == (
            400,
            "ValidationException",
            "The provided model identifier is invalid.",
        )


@pytest.mark.parametrize("body", [b"{", b"[1]", b"\xff", b'{"messages": NaN}'])
def test_malformed_json(server, body):
    assert raw(server, "/model/tiny/converse", body)[:2] == (400, "SerializationException")
    assert raw(server, "/model/tiny/invoke", body)[:2] == (400, "ValidationException")
    status, _, answer = server.post("/v1/chat/completions", body)
    assert (status, answer["error"]["type"]) == (400, "invalid_request_error")


def test_deep_nesting_is_an_error_of_the_request(server):
    body = b'{"messages":' + b"[" * 50_000 + b"]" * 50_000 + b"}"
    assert raw(server, "/model/tiny/converse", body)[0] == 400
    assert server.post("/v1/chat/completions", body)[0] == 400
    schema = b'{"a":' * 700 + b"1" + b"}" * 700
    tools = b'{"tools":[{"toolSpec":{"name":"f","inputSchema":{"json":' + schema + b"}}}]}"
    body = b'{"messages":[{"role":"user","content":[{"text":"a"}]}],"toolConfig":' + tools + b"}"
    assert raw(server, "/model/tiny/converse", body)[0] == 400


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, ["required key [messages]"]),
        ({"messages": [user("hi")], "schemaVersion": "messages-v2"}, ["schemaVersion", "messages-v1"]),
        ({"messages": [user("hi")], "prompt": "x"}, ["extraneous key [prompt]"]),
        ({"messages": [user("hi")], "inferenceConfig": {"topp": 1}}, ["extraneous key [topp]"]),
        ({"messages": [user("hi")], "inferenceConfig": {"top_p": 7}}, ["'inferenceConfig.top_p'", "less than"]),
        ({"messages": [user("hi")], "inferenceConfig": {"max_new_tokens": 0}}, ["'inferenceConfig.max_new_tokens'"]),
        ({"messages": [user("hi")], "inferenceConfig": {"top_p": 0.1, "topP": 0.2}}, ["given twice"]),
        ({"messages": [user("hi")], "inferenceConfig": {"topK": 1000}}, ["inferenceConfig.topK", "128"]),
        ({"messages": [user("hi")], "inferenceConfig": {"reasoningConfig": {"type": "enabled"}}}, ["reasoningConfig"]),
        ({"messages": [user({"cachePoint": {"type": "default"}})]}, ["extraneous key [cachePoint]"]),
        ({"messages": [user("a"), user("b")]}, ["must alternate"]),
        ({"messages": "hi"}, ["'messages'", "must be a list"]),
    ],
)
@pytest.mark.parametrize("path", ["invoke", "invoke-with-response-stream"])
def test_native_bodies_refused(server, path, body, words):
    status, kind, message = raw(server, f"/model/tiny/{path}", body)
    assert (status, kind) == (400, "ValidationException")
    for word in words:
        assert word in message


def test_count_tokens_refuses(server):
    status, kind, message = raw(server, "/model/tiny/count-tokens", {"input": {}})
    assert (status, kind) == (400, "ValidationException")
    assert "exactly one of [invokeModel, converse]" in message
    assert raw(server, "/model/tiny/count-tokens", {})[2].count("'input'")


def test_unknown_paths_and_methods(server):
    assert raw(server, "/model/tiny/sing", {})[:2] == (404, "UnknownOperationException")
    assert server.post("/v1/sing", {})[2]["error"]["code"] == "unknown_url"
    assert server.post("/v1/models", {})[0] == 405
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{server.url}/model/tiny/converse", timeout=10)
    caught.value.close()
    assert caught.value.code == 405


CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}
COMPLETION = {"model": "tiny", "prompt": "hi"}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": CHAT["messages"]}, "model"),
        ({"model": "tiny"}, "messages"),
        (CHAT | {"messages": []}, "messages"),
        (CHAT | {"messages": [{"role": "user", "content": "  "}]}, "messages[0].content"),
        (
            CHAT | {"messages": [{"role": "user", "content": [{"type": "text", "text": ""}]}]},
            "messages[0].content[0].text",
        ),
        (CHAT | {"messages": [{"role": "bard", "content": "a"}]}, "messages[0].role"),
        (CHAT | {"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
        (CHAT | {"messages": [{"role": "user", "content": [{"type": "smell"}]}]}, "messages[0].content[0].type"),
        (
            CHAT
            | {
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}],
                    }
                ]
            },
            "messages[0].content[0].image_url",
        ),
        (
            CHAT | {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]},
            "messages[0].content[0].input_audio",
        ),
        (CHAT | {"messages": [{"role": "tool", "tool_call_id": "x", "content": "r"}]}, "messages[0].content"),
        (CHAT | {"messages": [{"role": "tool", "content": "r"}]}, "messages[0].tool_call_id"),
        (CHAT | {"temperature": -1}, "temperature"),
        (CHAT | {"temperature": 2.5}, "temperature"),
        (CHAT | {"temperature": "hot"}, "temperature"),
        (CHAT | {"top_p": 2}, "top_p"),
        (CHAT | {"max_tokens": 0}, "max_tokens"),
        (CHAT | {"max_tokens": 1_000_000}, "max_tokens"),
        (CHAT | {"max_completion_tokens": 1_000_000}, "max_completion_tokens"),
        (CHAT | {"n": 0}, "n"),
        (CHAT | {"stop": [""]}, "stop"),
        (CHAT | {"top_logprobs": 2}, "top_logprobs"),
        (CHAT | {"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        (CHAT | {"tool_choice": "required"}, "tool_choice"),
        (CHAT | {"stream_options": {"include_usage": True}}, "stream_options"),
        (CHAT | {"temprature": 1}, "temprature"),
        (CHAT | {"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
    ],
)
def test_chat_refuses(server, body, param):
    status, headers, answer = server.post("/v1/chat/completions", body)
    assert status == 400
    assert answer["error"]["type"] == "invalid_request_error"
    assert answer["error"]["param"] == param
    assert answer["error"]["message"]
    assert headers["x-request-id"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"model": "tiny"}, "prompt"),
        (COMPLETION | {"prompt": ""}, "prompt"),
        (COMPLETION | {"prompt": []}, "prompt"),
        (COMPLETION | {"prompt": [[]]}, "prompt"),
        (COMPLETION | {"prompt": ["a", 3]}, "prompt"),
        (COMPLETION | {"prompt": [512]}, "prompt[0]"),
        (COMPLETION | {"prompt": [-1]}, "prompt[0]"),
        (COMPLETION | {"prompt": [1.5]}, "prompt[0]"),
        (COMPLETION | {"max_tokens": -1}, "max_tokens"),
        (COMPLETION | {"max_tokens": 0}, "max_tokens"),
        (COMPLETION | {"logprobs": 21}, "logprobs"),
        (COMPLETION | {"suffix": "x"}, "suffix"),
        (COMPLETION | {"best_of": 4}, "best_of"),
    ],
)
def test_completions_refuse(server, body, param):
    status, _, answer = server.post("/v1/completions", body)
    assert status == 400
    assert answer["error"]["param"] == param


def test_prompts_longer_than_the_context(server):
    for path, body in (
        ("/v1/chat/completions", CHAT | {"messages": [{"role": "user", "content": "word " * 3000}]}),
        ("/v1/completions", COMPLETION | {"prompt": "word " * 3000}),
        ("/v1/completions", COMPLETION | {"prompt": [5] * 600}),
        ("/v1/completions", COMPLETION | {"prompt": [5] * 400, "max_tokens": 200}),
    ):
        status, _, answer = server.post(path, body)
        assert (status, answer["error"]["code"]) == (400, "context_length_exceeded"), path


def test_a_prompt_of_megabytes_is_refused_without_holding_others_up(server):
    body = json.dumps(CHAT | {"messages": [{"role": "user", "content": "word " * 400_000}]}).encode()
    waits = []
    with ThreadPoolExecutor(1) as pool:
        started = time.monotonic()
        posting = pool.submit(server.post, "/v1/chat/completions", body)
        while not posting.done():
            asked = time.monotonic()
            server.health()
            waits.append(time.monotonic() - asked)
            time.sleep(0.05)
        took = time.monotonic() - started
    status, _, answer = posting.result()
    assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")
    assert max(waits) < max(0.5, took / 2)


def test_unknown_model_on_openai(server):
    for path, body in (("/v1/chat/completions", CHAT), ("/v1/completions", COMPLETION)):
        status, _, answer = server.post(path, body | {"model": "gpt-4"})
        assert status == 404
        assert answer["error"]["code"] == "model_not_found"
        assert answer["error"]["param"] == "model"


def test_bodies_over_the_limit(server):
    body = b'{"messages": "' + b"x" * 30_000_000 + b'"}'
    status, kind, message = raw(server, "/model/tiny/converse", body)
    assert (status, kind) == (400, "ValidationException")
    assert "Input is too long" in message
    assert "25000000 bytes" in message
    status, _, answer = server.post("/v1/chat/completions", body)
    assert status == 413
    assert "25000000" in answer["error"]["message"]
    with pytest.raises(ClientError, match="25000000 bytes"):
        server.boto3("bedrock-runtime").converse(modelId="tiny", messages=[user("x" * 30_000_000)])


def test_a_chunked_body_over_the_limit(server):
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        chunk = b"x" * 1_000_000
        for _ in range(26):
            connection.sendall(b"f4240\r\n" + chunk + b"\r\n")
        connection.sendall(b"0\r\n\r\n")
        assert b"413" in connection.recv(65536).split(b"\r\n")[0]


def test_a_client_that_expects_its_refusal_first(server):
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        head = (
            "POST /model/tiny/converse HTTP/1.1\r\nhost: x\r\ncontent-length: 30000000\r\nexpect: 100-continue\r\n\r\n"
        )
        connection.sendall(head.encode())
        answer = connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"connection: close" in answer.lower()


def test_the_server_still_answers(server):
    server.wait_until_idle()
    status, _, answer = server.post("/v1/chat/completions", CHAT | {"max_tokens": 2})
    assert status == 200
    assert answer["usage"]["completion_tokens"] <= 2
