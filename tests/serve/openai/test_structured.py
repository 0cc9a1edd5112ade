"""Structured output and tools as the openai package asks for them, of a random model that would say anything."""

import json
import re
from typing import Literal

import pytest
from openai import pydantic_function_tool
from pydantic import BaseModel, Field

USER = [{"role": "user", "content": "tell me"}]
REQUEST = {"model": "tiny", "messages": USER, "temperature": 1, "seed": 5}


class City(BaseModel):
    name: Literal["Paris", "Rome"]
    population: int = Field(ge=1, le=9999)
    capital: bool


@pytest.fixture
def client(server):
    return server.openai


def test_chat_parses_into_a_model(client):
    answer = client.chat.completions.parse(**REQUEST, response_format=City, n=3)
    for choice in answer.choices:
        assert isinstance(choice.message.parsed, City)
        assert choice.finish_reason == "stop"
    with client.chat.completions.stream(**REQUEST, response_format=City) as stream:
        stream.until_done()
    assert isinstance(stream.get_final_completion().choices[0].message.parsed, City)


def test_responses_parse_into_a_model(client):
    answer = client.responses.parse(model="tiny", input="tell me", text_format=City, temperature=1)
    assert isinstance(answer.output_parsed, City)
    assert answer.status == "completed"


def test_a_json_object(client):
    answer = client.chat.completions.create(**REQUEST, response_format={"type": "json_object"}, max_tokens=400)
    if answer.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(answer.choices[0].message.content), dict)
    else:
        assert answer.choices[0].message.content.startswith("{")


@pytest.mark.parametrize("chat", [True, False])
def test_grammars_as_vllm_asks_for_them(client, chat):
    for extra, pattern in (
        ({"guided_regex": "[ab]{3}"}, "[ab]{3}"),
        ({"guided_choice": ["yes", "no"]}, "yes|no"),
        ({"structured_outputs": {"grammar": 'start: "x" /[0-9]/ "y"'}}, "x[0-9]y"),
        ({"guided_json": {"enum": ["a", 7]}}, '"a"|7'),
    ):
        if chat:
            text = client.chat.completions.create(**REQUEST, extra_body=extra).choices[0].message.content
        else:
            text = client.completions.create(model="tiny", prompt="a", temperature=1, extra_body=extra).choices[0].text
        assert re.fullmatch(pattern, text), text


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "City"}}])
def test_chat_calls_tools_with_valid_arguments(client, choice):
    tools = [pydantic_function_tool(City)]
    answer = client.chat.completions.parse(**REQUEST, tools=tools, tool_choice=choice, parallel_tool_calls=False)
    (call,) = answer.choices[0].message.tool_calls
    assert answer.choices[0].finish_reason == "tool_calls"
    assert isinstance(call.function.parsed_arguments, City)
    with client.chat.completions.stream(
        **REQUEST, tools=tools, tool_choice=choice, parallel_tool_calls=False
    ) as stream:
        pieces = [event.arguments_delta for event in stream if event.type == "tool_calls.function.arguments.delta"]
    (streamed,) = stream.get_final_completion().choices[0].message.tool_calls
    assert streamed.function.parsed_arguments == call.function.parsed_arguments
    assert len([piece for piece in pieces if piece]) > 1


def test_responses_call_functions_with_valid_arguments(client):
    tool = {"type": "function", "name": "city", "parameters": City.model_json_schema(), "strict": False}
    request = {"model": "tiny", "input": "tell me", "tools": [tool], "tool_choice": "required", "temperature": 1}
    answer = client.responses.create(**request, parallel_tool_calls=False)
    (call,) = answer.output
    assert isinstance(City.model_validate_json(call.arguments), City)
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "done"}
    follow = client.responses.create(
        model="tiny", previous_response_id=answer.id, input=[result], tools=[tool], max_output_tokens=4
    )
    assert follow.status in ("completed", "incomplete")


def test_a_schema_that_cannot_be_met_is_refused(server):
    for body, param in (
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "nothing"}}}},
            "response_format",
        ),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "array"}}}]},
            "tools[0].function.parameters",
        ),
    ):
        status, _, answer = server.post("/v1/chat/completions", {"model": "tiny", "messages": USER} | body)
        assert (status, answer["error"]["param"]) == (400, param)
