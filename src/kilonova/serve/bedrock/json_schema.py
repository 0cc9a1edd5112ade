"""A model's own JSON held against its schema, with violations worded as the service words them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from kilonova.core.errors import InvalidRequest

_SHOWN_VIOLATIONS = 10
_SHOWN_CHARACTERS = 200
_TYPES = {dict: "JSONObject", list: "JSONArray", str: "String", bool: "Boolean", int: "Integer", float: "BigDecimal"}
_NAMES = {"object": "JSONObject", "array": "JSONArray"}


@lru_cache(maxsize=64)
def _validator(schema: bytes) -> Draft202012Validator:
    return Draft202012Validator(msgspec.json.decode(schema))


def compile_schema(schema: Mapping[str, Any]) -> Draft202012Validator:
    """What `check` holds bodies against; the same schema is compiled once."""
    return _validator(msgspec.json.encode(schema))


def check(value: Any, validator: Draft202012Validator) -> None:
    """Raises InvalidRequest, with the first place at fault and every violation, unless `value` satisfies a schema."""
    errors = sorted(validator.iter_errors(value), key=lambda error: list(map(str, error.absolute_path)))
    if errors:
        places = [(".".join(map(str, error.absolute_path)), text) for error in errors for text in _texts(error)]
        raise malformed(places[:_SHOWN_VIOLATIONS])


def malformed(violations: Sequence[tuple[str, str]]) -> InvalidRequest:
    """The error for a body that breaks its schema: places, as dotted names, and what is wrong there."""
    text = "".join(f"#{f'.{place}'.rstrip('.').replace('.', '/')}: {text}" for place, text in violations)
    message = f"Malformed input request: {text}, please reformat your input and try again."
    return InvalidRequest(message, field=violations[0][0] or None)


def _texts(error: ValidationError) -> list[str]:
    """The violations that make up an error."""
    value: Any = error.instance
    limit: Any = error.validator_value
    schema: Any = error.schema
    if error.validator == "required":
        return [f"required key [{name}] not found" for name in limit if name not in value]
    if error.validator == "additionalProperties":
        names = [name for name in value if name not in schema["properties"]]
        return [f"extraneous key [{name[:_SHOWN_CHARACTERS]}] is not permitted" for name in names]
    return [_text(str(error.validator), limit, value)]


def _text(keyword: str, limit: Any, value: Any) -> str:
    shown = _show(value)
    match keyword:
        case "type":
            found = "Null" if value is None else _TYPES[type(value)]
            return f"expected type: {_NAMES.get(limit, limit.capitalize())}, found: {found}"
        case "minLength" | "maxLength":
            return f"expected {keyword}: {limit}, actual: {len(value)}"
        case "minItems" | "maxItems":
            return f"expected {keyword[:3]}imum item count: {limit}, found: {len(value)}"
        case "minimum":
            return f"{shown} is not greater or equal to {limit}"
        case "maximum":
            return f"{shown} is not less or equal to {limit}"
        case "multipleOf":
            return f"{shown} is not a multiple of {limit}"
        case "pattern":
            return f"string [{shown}] does not match pattern {limit}"
        case _:
            return f"{shown} is not a valid enum value"


def _show(value: Any) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text[:_SHOWN_CHARACTERS]
