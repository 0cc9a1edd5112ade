"""JSON schemas as the grammar compiler takes them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

# Where other schemas stand in a schema.
_SCHEMAS = (
    "items",
    "additionalItems",
    "additionalProperties",
    "contains",
    "not",
    "if",
    "then",
    "else",
    "propertyNames",
)
_LISTS_OF_SCHEMAS = ("prefixItems", "anyOf", "oneOf", "allOf", "items")
_SCHEMAS_BY_NAME = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")

# What opens an object to more properties, or describes it in another place as well.
_OPENINGS = ("additionalProperties", "unevaluatedProperties", "patternProperties", "minProperties")
_COMBINATIONS = ("$ref", "$dynamicRef", "anyOf", "oneOf", "not", "if", "dependentSchemas")
_OBJECT_KEYWORDS = ("properties", "required", *_OPENINGS)

# An escape, a class, or a count; anything else is one character.
_PATTERN_TOKEN = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|(?P<count>\{\d+(?:,\d*)?\})", re.DOTALL)


def prepare_schema(schema: Mapping[str, Any], *, strict: bool) -> dict[str, Any]:
    """`schema` with the settings of llguidance: one way to write each value, as `json.dumps` does by default.

    Objects get the properties that are named and no others where the schema does not say otherwise and describes each
    in one place, since a small model would never end inventing them. With `strict`, keywords that cannot be enforced
    are errors of the compiler; else they are ignored.
    """
    prepared = dict(schema) if _is_combined(schema) else _close(dict(schema))
    prepared["x-guidance"] = {
        "whitespace_flexible": False,
        "item_separator": ", ",
        "key_separator": ": ",
        "lenient": not strict,
    }
    return prepared


def _is_combined(schema: Any) -> bool:
    """Whether an object may have to satisfy several parts of the schema at once."""
    if not isinstance(schema, Mapping):
        return False
    if "allOf" in schema or "$dynamicRef" in schema:
        return True
    if any(key in schema for key in _COMBINATIONS) and any(key in schema for key in _OBJECT_KEYWORDS):
        return True
    return any(_is_combined(child) for child in _children(schema))


def _close(schema: Any) -> Any:
    if not isinstance(schema, Mapping):
        return schema
    closed: dict[str, Any] = {}
    for key, value in schema.items():
        if key in _SCHEMAS_BY_NAME and isinstance(value, Mapping):
            closed[key] = {name: _close(child) for name, child in value.items()}
        elif key in _LISTS_OF_SCHEMAS and isinstance(value, list | tuple):
            closed[key] = [_close(child) for child in value]
        else:
            closed[key] = _close(value) if key in _SCHEMAS else value
    properties, required = schema.get("properties"), schema.get("required", ())
    if (
        isinstance(properties, Mapping)
        and isinstance(required, list | tuple)
        and all(name in properties for name in required)
        and not any(key in schema for key in _OPENINGS)
    ):
        closed["additionalProperties"] = False
    return closed


def _children(schema: Mapping[str, Any]) -> Iterator[Any]:
    for key, value in schema.items():
        if key in _SCHEMAS_BY_NAME and isinstance(value, Mapping):
            yield from value.values()
        elif key in _LISTS_OF_SCHEMAS and isinstance(value, list | tuple):
            yield from value
        elif key in _SCHEMAS:
            yield value


def patterns(schema: Any) -> Iterator[str]:
    """Every regular expression in a schema."""
    if isinstance(schema, Mapping):
        if isinstance(schema.get("pattern"), str):
            yield schema["pattern"]
        by_pattern = schema.get("patternProperties")
        if isinstance(by_pattern, Mapping):
            yield from by_pattern
        for child in _children(schema):
            yield from patterns(child)


def largest_repeat(pattern: str) -> int:
    """The largest product of counts `{m,n}` that stand within one another in a regular expression; 1 for none."""
    groups = [1]  # What each open group repeats so far.
    last = 1
    place = 0
    while place < len(pattern):
        token = _PATTERN_TOKEN.match(pattern, place)
        text = pattern[place] if token is None else token[0]
        place += len(text)
        if text == "(":
            groups.append(1)
            last = 1
        elif text == ")" and len(groups) > 1:
            last = groups.pop()
        elif token is not None and token["count"]:
            last *= max(int(number[:9]) for number in re.findall(r"\d+", text)) or 1
        elif text not in "*+?":
            last = 1
        groups[-1] = max(groups[-1], last)
    return max(groups)
