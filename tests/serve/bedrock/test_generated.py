"""Requests generated from botocore's service model: none is answered by a server error, and faults are named."""

import base64
import http.client
import json
from urllib.parse import quote

import pytest
from botocore.eventstream import EventStreamBuffer
from botocore.model import StructureShape
from hypothesis import assume, given
from hypothesis import strategies as st
from tests.serve.bedrock.request_strategies import (
    SERVICE,
    documents,
    extreme_texts,
    faults,
    member_of,
    of_shape,
    places,
    replaced,
    to_native,
    to_operation,
    valid_requests,
)

from kilonova.core.types import (
    Finished,
    PromptProcessed,
    TextDelta,
    ToolInputDelta,
    ToolUse,
    ToolUseBlock,
    ToolUseStart,
    Usage,
)
from kilonova.engine.validation import encode_prompt

MODEL = "amazon.nova-micro-v1:0"
PATHS = {
    "Converse": "converse",
    "ConverseStream": "converse-stream",
    "InvokeModel": "invoke",
    "InvokeModelWithResponseStream": "invoke-with-response-stream",
    "CountTokens": "count-tokens",
}
operations = st.sampled_from(sorted(PATHS))


@pytest.fixture
def ask(play, tiny_tokenizer_directory):
    """Sends a body to an operation: status, the name of the error, and the answer's JSON or stream of events."""
    from kilonova.text.tokenizer import Tokenizer

    tokenizer = Tokenizer.from_directory(tiny_tokenizer_directory)

    def script(request):
        prompt = encode_prompt(request, tokenizer, tokenizer.vocab_size)
        events = [PromptProcessed(len(prompt)), TextDelta("well")]
        if request.tools and request.grammar is None:
            name = request.tools[0].name
            events += [ToolUseStart("t", name), ToolInputDelta("{}"), ToolUse(ToolUseBlock("t", name, {}))]
        return [*events, Finished("end_turn", Usage(len(prompt), 3, 1, 2), latency=0.1)]

    server, _ = play(script)
    host, port = server.url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=300)

    def ask(operation, body, headers=None):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        path = f"/model/{quote(MODEL)}/{PATHS[operation]}"
        connection.request("POST", path, data, {"content-type": "application/json"} | (headers or {}))
        response = connection.getresponse()
        content = response.read()
        connection.close()  # The server would close it while the next request is being generated.
        error = response.headers.get("x-amzn-ErrorType")
        if response.headers["content-type"] != "application/vnd.amazon.eventstream":
            return response.status, error, json.loads(content)
        buffer = EventStreamBuffer()
        buffer.add_data(content)
        return response.status, error, list(buffer)

    return ask


def check_refusal(status, error, answer):
    assert status == 400, (status, answer)
    assert error in ("ValidationException", "SerializationException"), answer
    assert answer["message"]
    assert len(answer["message"]) < 20_000


def check_answer(operation, status, error, answer):
    assert (status, error) == (200, None), answer
    if operation.endswith("Stream"):
        assert all(message.headers[":message-type"] == "event" for message in answer), answer
        last = json.loads(answer[-1].payload)
        if operation == "InvokeModelWithResponseStream":
            last = json.loads(base64.b64decode(last["bytes"]))["metadata"]
        assert last["usage"]["totalTokens"] > 0
    elif operation == "CountTokens":
        assert answer["inputTokens"] > 0
    else:
        assert answer["output"]["message"]["content"]
        assert answer["usage"]["totalTokens"] > 0


@given(operation=operations, request=valid_requests())
def test_valid_requests_succeed(ask, operation, request):
    check_answer(operation, *ask(operation, to_operation(operation, request)))


@given(data=st.data(), operation=operations)
def test_what_fits_the_shapes_is_answered_or_refused(ask, data, operation):
    if operation.startswith("Invoke"):
        members = {
            name: member_of("Converse", name) for name in ("messages", "system", "inferenceConfig", "toolConfig")
        }
        body = data.draw(st.fixed_dictionaries({}, optional=members))
    else:
        shape = SERVICE.operation_model(operation).input_shape
        required = {name: of_shape(shape.members[name]) for name in shape.required_members if name != "modelId"}
        optional = {name: of_shape(shape.members[name]) for name in shape.members if name not in required}
        optional.pop("modelId", None)
        body = data.draw(st.fixed_dictionaries(required, optional=optional))
    status, error, answer = ask(operation, body)
    if status == 200:
        check_answer(operation, status, error, answer)
    else:
        check_refusal(status, error, answer)


@given(data=st.data(), operation=st.sampled_from(["Converse", "ConverseStream"]), request=valid_requests())
def test_a_member_that_breaks_its_shape_is_named(ask, data, operation, request):
    found = [
        (path, shape)
        for path, shape in places(SERVICE.operation_model(operation).input_shape, request)
        if path and not (isinstance(shape, StructureShape) and shape.is_document_type)
    ]
    path, shape = data.draw(st.sampled_from(found))
    status, error, answer = ask(operation, replaced(request, path, data.draw(faults(shape))))
    check_refusal(status, error, answer)
    assert error == "ValidationException"
    assert next(part for part in reversed(path) if isinstance(part, str)) in answer["message"]


@given(data=st.data(), operation=operations, request=valid_requests())
def test_any_json_anywhere_is_answered_or_refused(ask, data, operation, request):
    body = to_operation(operation, request)
    paths = [()]

    def collect(value, path):
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, item in items:
            paths.append((*path, key))
            collect(item, (*path, key))

    collect(body, ())
    for _ in range(data.draw(st.integers(1, 2))):
        new = data.draw(documents | extreme_texts)
        try:
            body = replaced(body, data.draw(st.sampled_from(paths)), new)
        except (AttributeError, KeyError, TypeError):
            assume(False)
    if operation == "CountTokens" and data.draw(st.booleans()):
        text = json.dumps(to_native(request)).encode()
        body = {"input": {"invokeModel": {"body": base64.b64encode(text).decode()}}}
    status, error, answer = ask(operation, body)
    if status == 200:
        check_answer(operation, status, error, answer)
    else:
        check_refusal(status, error, answer)
