"""Converse's `additionalModelResponseFieldPaths`: members of the model's own answer, chosen by JSON pointers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from kilonova.core.errors import InvalidRequest

MEMBER = "additionalModelResponseFieldPaths"


def parse_pointers(paths: Sequence[str]) -> list[list[str]]:
    """JSON pointers (RFC 6901) as lists of members; raises InvalidRequest for what is not one."""
    pointers = []
    for index, path in enumerate(paths):
        if not path.startswith("/") or re.search("~(?![01])", path):
            raise InvalidRequest(
                f"The value {path!r} at {MEMBER}.{index} is not a JSON pointer. "
                "Start it with '/' and name members, such as '/stopReason'.",
                field=f"{MEMBER}.{index}",
            )
        pointers.append([part.replace("~1", "/").replace("~0", "~") for part in path[1:].split("/")])
    return pointers


def select(response: Mapping[str, Any], pointers: list[list[str]]) -> dict[str, Any] | None:
    """The members of `response` that the pointers name, nested as they are there; what is not there is left out."""
    selected: dict[str, Any] = {}
    covered: set[tuple[str, ...]] = set()
    for pointer in sorted(pointers, key=len):
        if any(tuple(pointer[:length]) in covered for length in range(1, len(pointer) + 1)):
            continue
        value: Any = response
        for part in pointer:
            if isinstance(value, Mapping):
                value = value.get(part)
            elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
                value = value[int(part)]
            else:
                value = None
        if value is None:
            continue
        target = selected
        for part in pointer[:-1]:
            target = target.setdefault(part, {})
        target[pointer[-1]] = value
        covered.add(tuple(pointer))
    return selected or None
