"""Bodies of requests with members taken out and replaced at random: none may be an error of the server."""

import copy
import random

import pytest

SCHEMA = {"type": "object", "properties": {"a": {"enum": [1, 2]}}}
FUNCTION = {"name": "f", "description": "d", "parameters": SCHEMA, "strict": True}
SAMPLING = {
    "model": "tiny",
    "temperature": 1,
    "top_p": 0.9,
    "top_k": 5,
    "min_p": 0.1,
    "seed": 1,
    "stop": ["a"],
    "logit_bias": {"5": 1},
    "frequency_penalty": 1,
    "presence_penalty": 1,
    "repetition_penalty": 1.1,
    "metadata": {"a": "b"},
    "service_tier": "auto",
}
CHAT = SAMPLING | {
    "messages": [
        {"role": "system", "content": "s"},
        {"role": "user", "content": [{"type": "text", "text": "a"}]},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "x", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "x", "content": "r"},
    ],
    "tools": [{"type": "function", "function": FUNCTION}],
    "tool_choice": {
        "type": "allowed_tools",
        "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "f"}}]},
    },
    "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}},
    "n": 2,
    "logprobs": True,
    "top_logprobs": 2,
    "max_tokens": 3,
}
COMPLETION = SAMPLING | {
    "prompt": [[1, 2], "a"],
    "echo": True,
    "logprobs": 1,
    "max_tokens": 2,
    "n": 1,
    "guided_choice": ["a", "b"],
    "prompt_logprobs": 1,
}
RESPONSE = SAMPLING | {
    "input": [
        {"role": "user", "content": [{"type": "input_text", "text": "a"}]},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "x"}]},
    ],
    "instructions": "i",
    "tools": [{"type": "function", **FUNCTION}],
    "tool_choice": {"type": "function", "name": "f"},
    "text": {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA}},
    "include": ["message.output_text.logprobs"],
    "truncation": "auto",
    "max_output_tokens": 3,
}
TOKENIZE = {"model": "tiny", "messages": CHAT["messages"], "tools": CHAT["tools"], "return_token_strs": True}
VALUES = [
    None, True, False, 0, -1, 1.5, 1e308, 2**70, "", "a", "\0", "x" * 70, "auto", "required", [], {}, [None],
    [[]], [1, "a"], {"type": "text"}, {"type": "function"}, {"name": "f"}, {"a": {"b": [1]}},
    [{"type": "text", "text": "a"}], [{"role": "user", "content": "a"}],
]  # fmt: skip


def paths(value, path=()):
    if path:
        yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from paths(child, (*path, key))


def mutated(body, numbers):
    body = copy.deepcopy(body)
    for _ in range(numbers.choice((1, 1, 1, 2, 3))):
        *outer, last = numbers.choice(list(paths(body)))
        place = body
        for key in outer:
            place = place[key]
        if numbers.random() < 0.3:
            del place[last]
        else:
            place[last] = copy.deepcopy(numbers.choice(VALUES))
    return body


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", CHAT),
        ("/v1/completions", COMPLETION),
        ("/v1/responses", RESPONSE),
        ("/tokenize", TOKENIZE),
    ],
)
def test_no_request_is_an_error_of_the_server(server, path, body):
    numbers = random.Random(path)
    assert server.post(path, body)[0] == 200
    answered = 0
    for _ in range(150):
        request = mutated(body, numbers)
        if not isinstance(request, dict) or request.get("stream"):
            continue
        status, _, answer = server.post(path, request)
        assert status in (200, 400, 404), (request, answer)
        if status == 200:
            answered += 1
        else:
            assert answer["error"]["type"] == "invalid_request_error"
            assert answer["error"]["message"], request
            assert answer["error"]["param"], (request, answer)
    assert answered > 10
    server.wait_until_idle()
