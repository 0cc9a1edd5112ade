"""Request shapes of botocore's service models, compiled into closures that check and read JSON.

A parser checks what its shape declares (required members, types, ranges, lengths, patterns, enumerations, unions) and
gathers every violation in the wording the real service uses.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from botocore.model import ListShape, MapShape, Shape, StructureShape

from kilonova.core.errors import InvalidRequest, nearest

_SHOWN_VALUE_CHARACTERS = 200
_SHOWN_PATH_CHARACTERS = 400
_SHOWN_VIOLATIONS = 20


class Violations(list[tuple[str, str]]):
    """The violations of one request, in the order they were found, as (field, sentence)."""

    def add(self, path: str, shown: str, constraint: str) -> None:
        """Records that the value at `path`, worded as `shown` unless that is empty, breaks `constraint`."""
        path = _shorten(path, _SHOWN_PATH_CHARACTERS)
        value = f"Value {shown} at" if shown else "Value at"
        self.append((path, f"{value} '{path}' failed to satisfy constraint: {constraint}"))


Parse = Callable[[Any, str, Violations], Any]


class ShapeViolation(InvalidRequest):
    """A request does not fit its shape; the text lists every violation and `field` names the first member at fault."""

    def __init__(self, violations: Violations) -> None:
        count = len(violations)
        noun = "error" if count == 1 else "errors"
        super().__init__(
            f"{count} validation {noun} detected: " + "; ".join(text for _, text in violations[:_SHOWN_VIOLATIONS]),
            field=violations[0][0],
        )


def _show(value: Any) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return f"'{_shorten(text, _SHOWN_VALUE_CHARACTERS)}'"


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else text[:length] + "..."


def _join(path: str, member: str) -> str:
    return f"{path}.{member}" if path else member


class ParserCompiler:
    """Compiles the shapes of one service, each once; recursive shapes refer to themselves by name."""

    def __init__(self) -> None:
        self._parsers: dict[str, Parse] = {}

    def parser(self, shape: Shape) -> Parse:
        """The closure `(value, path, violations) -> parsed`: blobs become bytes, absent members stay absent."""
        known = self._parsers.get(shape.name)
        if known is not None:
            return known
        self._parsers[shape.name] = lambda value, path, violations: self._parsers[shape.name](value, path, violations)
        self._parsers[shape.name] = compiled = self._compile(shape)
        return compiled

    def _compile(self, shape: Shape) -> Parse:
        if isinstance(shape, StructureShape):
            return _parse_document if shape.is_document_type else self._structure_parser(shape)
        if isinstance(shape, ListShape):
            return self._list_parser(shape)
        if isinstance(shape, MapShape):
            return self._map_parser(shape)
        if shape.type_name == "string":
            return _string_parser(shape.metadata, getattr(shape, "enum", []))
        if shape.type_name in ("integer", "long"):
            return _number_parser(shape.metadata, int, "an integer")
        if shape.type_name in ("float", "double"):
            return _number_parser(shape.metadata, (int, float), "a number")
        if shape.type_name == "boolean":
            return _parse_boolean
        if shape.type_name == "blob":
            return _blob_parser(shape.metadata)
        raise NotImplementedError(f"request shape {shape.name} of type {shape.type_name}")

    def structure_parser(self, members: Mapping[str, Shape], required: list[str], *, union: bool = False) -> Parse:
        """A parser of an object with these members; a `union` must set exactly one of them."""
        parsers = {name: self.parser(member) for name, member in members.items()}
        names = "[" + ", ".join(parsers) + "]"

        def parse(value: Any, path: str, violations: Violations) -> Any:
            if type(value) is not dict:
                violations.add(path, _show(value), "Member must be an object")
                return None
            parsed = {}
            for name, item in value.items():
                member = parsers.get(name)
                if member is None:
                    violations.add(
                        _join(path, name),
                        "",
                        f"Member is not known here, {nearest(name[:_SHOWN_VALUE_CHARACTERS], parsers)}",
                    )
                elif item is not None or member is _parse_document:  # Null is a document, too.
                    parsed[name] = member(item, _join(path, name), violations)
            for name in required:
                if name not in parsed:
                    violations.add(_join(path, name), "null", "Member must not be null")
            if union and len(parsed) != 1 and all(name in parsers for name in value):
                violations.add(path, "", f"Member must have exactly one of {names} set")
            return parsed

        return parse

    def _structure_parser(self, shape: StructureShape) -> Parse:
        return self.structure_parser(shape.members, shape.required_members, union=shape.is_tagged_union)

    def _list_parser(self, shape: ListShape) -> Parse:
        member = self.parser(shape.member)
        check_length = _length_check(shape.metadata)

        def parse(value: Any, path: str, violations: Violations) -> Any:
            if type(value) is not list:
                violations.add(path, _show(value), "Member must be a list")
                return None
            check_length(value, path, violations)
            parsed = []
            for index, item in enumerate(value, 1):
                item_path = f"{path}.{index}.member"
                if item is None:
                    violations.add(item_path, "null", "Member must not be null")
                else:
                    parsed.append(member(item, item_path, violations))
            return parsed

        return parse

    def _map_parser(self, shape: MapShape) -> Parse:
        parse_key = self.parser(shape.key)
        parse_value = self.parser(shape.value)
        check_length = _length_check(shape.metadata)

        def parse(value: Any, path: str, violations: Violations) -> Any:
            if type(value) is not dict:
                violations.add(path, _show(value), "Member must be an object")
                return None
            check_length(value, path, violations)
            parsed = {}
            for key, item in value.items():
                parse_key(key, f"{path}.key", violations)
                if item is None:
                    violations.add(f"{path}.{key}.member", "null", "Member must not be null")
                else:
                    parsed[key] = parse_value(item, f"{path}.{key}.member", violations)
            return parsed

        return parse


def _length_check(limits: Mapping[str, Any]) -> Callable[[Any, str, Any], None]:
    low, high = limits.get("min"), limits.get("max")

    def check(value: Any, path: str, violations: Violations) -> None:
        if low is not None and len(value) < low:
            violations.add(path, "", f"Member must have length greater than or equal to {low}")
        if high is not None and len(value) > high:
            violations.add(path, "", f"Member must have length less than or equal to {high}")

    return check


def _string_parser(limits: Mapping[str, Any], enum: list[str]) -> Parse:
    check_length = _length_check(limits)
    pattern = limits.get("pattern")
    matches = re.compile(pattern).fullmatch if pattern else None

    def parse(value: Any, path: str, violations: Violations) -> Any:
        if type(value) is not str:
            violations.add(path, _show(value), "Member must be a string")
            return None
        check_length(value, path, violations)
        if enum and value not in enum:
            violations.add(path, _show(value), f"Member must satisfy enum value set: [{', '.join(enum)}]")
        if matches is not None and not matches(value):
            violations.add(path, _show(value), f"Member must satisfy regular expression pattern: {pattern}")
        return value

    return parse


def _number_parser(limits: Mapping[str, Any], types: type | tuple[type, ...], noun: str) -> Parse:
    low, high = limits.get("min"), limits.get("max")

    def parse(value: Any, path: str, violations: Violations) -> Any:
        if not isinstance(value, types) or isinstance(value, bool):
            violations.add(path, _show(value), f"Member must be {noun}")
            return None
        if low is not None and value < low:
            violations.add(path, _show(value), f"Member must have value greater than or equal to {low}")
        if high is not None and value > high:
            violations.add(path, _show(value), f"Member must have value less than or equal to {high}")
        return value

    return parse


def from_text(shape: Shape) -> Callable[[str], Any]:
    """How a value of `shape` is written in a header, a query or a path; what is not one is left for the parser."""
    if shape.type_name in ("integer", "long"):
        return lambda text: int(text) if re.fullmatch(r"-?[0-9]{1,18}", text) else text
    if shape.type_name == "boolean":
        return lambda text: {"true": True, "false": False}.get(text, text)
    return str


def _parse_boolean(value: Any, path: str, violations: Violations) -> Any:
    if type(value) is not bool:
        violations.add(path, _show(value), "Member must be a boolean")
    return value


def _parse_document(value: Any, path: str, violations: Violations) -> Any:
    return value


def _blob_parser(limits: Mapping[str, Any]) -> Parse:
    check_length = _length_check(limits)

    def parse(value: Any, path: str, violations: Violations) -> Any:
        if type(value) is not str:
            violations.add(path, _show(value), "Member must be a string in base64")
            return None
        try:
            data = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            violations.add(path, "", "Member must be in base64")
            return None
        check_length(data, path, violations)
        return data

    return parse
