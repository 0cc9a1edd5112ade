"""The formats an answer can be held to, as each API words them, to the core's grammars."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from msgspec import Struct

from kilonova.core.errors import InvalidRequest
from kilonova.core.types import Grammar
from kilonova.serve.openai.sampling import SamplingFields, StructuredOutputs

FormatType = Literal["text", "json_object", "json_schema"]


class JSONSchema(Struct):
    """A named schema of chat's `response_format`. Answers always fit it, whatever `strict` says."""

    name: str
    schema: dict[str, Any] | None = None
    strict: bool | None = None
    description: str | None = None


class ResponseFormat(Struct):
    """Chat's `response_format`."""

    type: FormatType
    json_schema: JSONSchema | None = None


class TextFormat(Struct, omit_defaults=True):
    """The `text.format` of a response, whose schema is not wrapped."""

    type: FormatType
    name: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None
    description: str | None = None


class TextConfig(Struct):
    """The `text` of a response; `verbosity` changes nothing."""

    format: TextFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


def to_grammar(request: SamplingFields, response_format: ResponseFormat | None = None) -> Grammar | None:
    """The grammar of a request that has chat's `response_format`, or one of vLLM's ways to say it, or nothing."""
    grammars = {} if response_format is None else {"response_format": _from_response_format(response_format)}
    if request.structured_outputs is not None:
        grammars["structured_outputs"] = _from_vllm(request.structured_outputs, "structured_outputs")
    guided = StructuredOutputs(
        json=request.guided_json,
        regex=request.guided_regex,
        choice=request.guided_choice,
        grammar=request.guided_grammar,
    )
    if guided != StructuredOutputs():
        grammars["guided_*"] = _from_vllm(guided, grammar_field(request))
    given = {name: grammar for name, grammar in grammars.items() if grammar is not None}
    if len(given) > 1:
        raise InvalidRequest(f"Give one of {', '.join(given)}.", field=next(iter(given)))
    return next(iter(given.values()), None)


def grammar_field(request: SamplingFields) -> str:
    """The name under which one of vLLM's grammars was given."""
    if request.structured_outputs is not None:
        return "structured_outputs"
    names = ("guided_json", "guided_regex", "guided_choice", "guided_grammar")
    return next((name for name in names if getattr(request, name) is not None), "response_format")


def from_text_format(format: TextFormat, field: str) -> Grammar | None:
    """The grammar of a response's format."""
    if format.type == "json_schema" and not format.name:
        raise InvalidRequest(f"Missing required parameter: '{field}.name'.", field=f"{field}.name")
    return _grammar(format.type, format.schema, f"{field}.schema")


def _from_response_format(format: ResponseFormat) -> Grammar | None:
    if format.type == "json_schema" and format.json_schema is None:
        field = "response_format.json_schema"
        raise InvalidRequest(f"Missing required parameter: '{field}'.", field=field)
    schema = format.json_schema.schema if format.json_schema is not None else None
    return _grammar(format.type, schema, "response_format.json_schema.schema")


def _grammar(type: FormatType, schema: Mapping[str, Any] | None, field: str) -> Grammar | None:
    if type == "text":
        return None
    if type == "json_object":
        return Grammar("json_object")
    if schema is None:
        raise InvalidRequest(f"Missing required parameter: '{field}'.", field=field)
    return Grammar("json_schema", schema)


def _from_vllm(outputs: StructuredOutputs, field: str) -> Grammar:
    given = [name for name in outputs.__struct_fields__ if getattr(outputs, name) not in (None, False)]
    if len(given) != 1:
        raise InvalidRequest("Give one of json, regex, choice, grammar and json_object.", field=field)
    if outputs.json is not None:
        return Grammar("json_schema", _parse_schema(outputs.json, field))
    if outputs.regex is not None:
        return Grammar("regex", outputs.regex)
    if outputs.choice is not None:
        if not outputs.choice:
            raise InvalidRequest("There must be at least one choice.", field=field)
        return Grammar("choice", tuple(outputs.choice))
    if outputs.grammar is not None:
        return Grammar("lark", outputs.grammar)
    return Grammar("json_object")


def _parse_schema(schema: dict[str, Any] | str, field: str) -> dict[str, Any]:
    try:
        parsed = msgspec.json.decode(schema) if isinstance(schema, str) else schema
    except (msgspec.DecodeError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict):
        raise InvalidRequest("The JSON schema must be an object, or one in a string.", field=field)
    return parsed
