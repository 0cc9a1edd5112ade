"""The wording of the errors for what a shape cannot express; paths are dotted and count from zero."""

from __future__ import annotations

from typing import Any

import msgspec

from kilonova.core.errors import InvalidRequest

_SHOWN_CHARACTERS = 200


def unsupported(field: str) -> InvalidRequest:
    """The error for a member that the service has and this model does not."""
    return InvalidRequest(f"This model doesn't support the {field} field. Remove {field} and try again.", field=field)


def extraneous(path: str, name: str, *, native_path: str | None = None) -> InvalidRequest:
    """The error for the member `name` of a model's own JSON at `path` that it does not know.

    `native_path` is where the model's own JSON has it, if that is elsewhere.
    """
    name = name[:_SHOWN_CHARACTERS]
    place = path if native_path is None else native_path
    pointer = "".join(f"/{part}" for part in place.split(".") if part)
    return InvalidRequest(
        f"Malformed input request: #{pointer}: extraneous key [{name}] is not permitted, please reformat your input "
        "and try again.",
        field=f"{path}.{name}" if path else name,
    )


def constraint(field: str, value: Any, rule: str) -> InvalidRequest:
    """The error for a `value` that does not satisfy a `rule`, worded as violations of shapes are."""
    shown = msgspec.json.encode(value).decode()[:_SHOWN_CHARACTERS]
    text = f"Value '{shown}' at '{field}' failed to satisfy constraint: Member must be {rule}"
    return InvalidRequest(f"1 validation error detected: {text}", field=field)
