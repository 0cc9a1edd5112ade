"""Botocore's service models, compiled once into request parsers and response writers.

Each shape becomes one closure, so that nothing of the service model is walked while a request is served. A parser
checks what the shape declares (required members, types, ranges, lengths, patterns, enumerations, unions) and gathers
every violation in the wording the real service uses; a writer turns Python values into their JSON form and refuses
members the shape does not declare.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from botocore.loaders import Loader
from botocore.model import ListShape, MapShape, OperationModel, ServiceModel, Shape, StructureShape

from kilonova.core.errors import InvalidRequest, nearest

_SHOWN_VALUE_CHARACTERS = 200
_SHOWN_VIOLATIONS = 20


class Violations(list[tuple[str, str]]):
    """The violations of one request, in the order they were found, as (field, sentence)."""

    def add(self, path: str, shown: str, constraint: str) -> None:
        """Records that the value at `path`, worded as `shown` unless that is empty, breaks `constraint`."""
        value = f"Value {shown} at" if shown else "Value at"
        self.append((path, f"{value} '{path}' failed to satisfy constraint: {constraint}"))


Parse = Callable[[Any, str, Violations], Any]
Write = Callable[[Any], Any]


class ShapeViolation(InvalidRequest):
    """A request does not fit its shape; the text lists every violation and `field` names the first member at fault."""

    def __init__(self, violations: Violations) -> None:
        count = len(violations)
        noun = "error" if count == 1 else "errors"
        super().__init__(
            f"{count} validation {noun} detected: " + "; ".join(text for _, text in violations[:_SHOWN_VIOLATIONS]),
            field=violations[0][0],
        )


class MalformedBody(InvalidRequest):
    """A request's body is not JSON, or not a JSON object."""


def _show(value: Any) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    if len(text) > _SHOWN_VALUE_CHARACTERS:
        text = text[:_SHOWN_VALUE_CHARACTERS] + "..."
    return f"'{text}'"


def _join(path: str, member: str) -> str:
    return f"{path}.{member}" if path else member


def load_service(name: str) -> ServiceModel:
    """Botocore's newest model of the service `name` (`bedrock-runtime`, `bedrock`)."""
    return ServiceModel(Loader().load_service_model(name, "service-2"), name)


class ShapeCompiler:
    """Compiles the shapes of one service, each once; recursive shapes refer to themselves by name."""

    def __init__(self) -> None:
        self._parsers: dict[str, Parse] = {}
        self._writers: dict[str, Write] = {}

    def parser(self, shape: Shape) -> Parse:
        """The closure `(value, path, violations) -> parsed`: blobs become bytes, absent members stay absent."""
        known = self._parsers.get(shape.name)
        if known is not None:
            return known
        self._parsers[shape.name] = lambda value, path, violations: self._parsers[shape.name](value, path, violations)
        self._parsers[shape.name] = compiled = self._compile_parser(shape)
        return compiled

    def _compile_parser(self, shape: Shape) -> Parse:
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
                    violations.add(_join(path, name), "", f"Member is not known here, {nearest(name, parsers)}")
                elif item is not None:
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

    def writer(self, shape: Shape) -> Write:
        """The closure `value -> JSON form` of a shape; members whose value is None are left out."""
        key = f"{shape.name} {shape.serialization.get('timestampFormat', '')}"
        known = self._writers.get(key)
        if known is not None:
            return known
        self._writers[key] = lambda value: self._writers[key](value)
        self._writers[key] = compiled = self._compile_writer(shape)
        return compiled

    def _compile_writer(self, shape: Shape) -> Write:
        if isinstance(shape, StructureShape):
            return _write_as_is if shape.is_document_type else self._structure_writer(shape)
        if isinstance(shape, ListShape):
            member = self.writer(shape.member)
            return lambda values: [member(value) for value in values]
        if isinstance(shape, MapShape):
            item = self.writer(shape.value)
            return lambda values: {key: item(value) for key, value in values.items()}
        if shape.type_name == "blob":
            return _write_blob
        if shape.type_name == "timestamp":
            iso8601 = shape.serialization.get("timestampFormat") == "iso8601"
            return _write_iso8601 if iso8601 else datetime.timestamp
        return _write_as_is

    def _structure_writer(self, shape: StructureShape) -> Write:
        writers = {name: self.writer(member) for name, member in shape.members.items()}
        required = shape.required_members

        def write(value: Mapping[str, Any]) -> dict[str, Any]:
            written = {name: writers[name](item) for name, item in value.items() if item is not None}
            for name in required:
                if name not in written:
                    raise ValueError(f"{shape.name} lacks its required member {name!r}")
            return written

        return write


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


def _write_as_is(value: Any) -> Any:
    return value


def _write_blob(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _write_iso8601(value: datetime) -> str:
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def decode_object(body: bytes) -> dict[str, Any]:
    """A request body as a JSON object; an empty body is an empty object. Raises MalformedBody."""
    if not body:
        return {}
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise MalformedBody(f"The request body is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise MalformedBody("The request body must be a JSON object")
    return value


class OperationShapes:
    """One operation: `parse` reads a request and `write` a response; `events` writes the events of a streamed one.

    Members named in `resolved` are left to the caller, who takes more forms of them than the shape admits.
    """

    def __init__(self, operation: OperationModel, compiler: ShapeCompiler, resolved: tuple[str, ...] = ()) -> None:
        self.name = operation.name
        shape = operation.input_shape
        self._payload = shape.serialization.get("payload")
        body: dict[str, Shape] = {}
        self._located: list[tuple[str, str, str, Parse]] = []
        for name, member in shape.members.items():
            if name in resolved:
                continue
            location = member.serialization.get("location")
            if location is not None:
                wire_name = member.serialization.get("name", name)
                self._located.append((location, wire_name, name, compiler.parser(member)))
            elif name != self._payload:
                body[name] = member
        self._required_located = [name for _, _, name, _ in self._located if name in shape.required_members]
        self._parse_body = compiler.structure_parser(body, [name for name in shape.required_members if name in body])
        self._write_output = compiler.writer(operation.output_shape)
        events = operation.get_event_stream_output() if operation.has_event_stream_output else None
        self.events: dict[str, Write] = (
            {
                name: compiler.writer(event)
                for name, event in events.members.items()
                if not event.metadata.get("exception")
            }
            if events is not None
            else {}
        )

    def parse(
        self,
        body: bytes,
        *,
        uri: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """The operation's parameters from a request: `uri`, `headers` (lower-case names) and `query` hold decoded text.

        A payload member (InvokeModel's `body`) is given as the raw bytes. Raises MalformedBody and ShapeViolation.
        """
        sources = {"uri": uri or {}, "header": headers or {}, "querystring": query or {}}
        violations = Violations()
        parameters: dict[str, Any] = {}
        for location, wire_name, name, parse in self._located:
            wire_name = wire_name.lower() if location == "header" else wire_name
            value = sources[location].get(wire_name)
            if value is not None:
                parameters[name] = parse(value, name, violations)
        for name in self._required_located:
            if name not in parameters:
                violations.add(name, "null", "Member must not be null")
        if self._payload is not None:
            parameters[self._payload] = body
        else:
            parameters.update(self.parse_members(decode_object(body), "", violations))
        if violations:
            raise ShapeViolation(violations)
        return parameters

    def parse_members(self, value: Any, path: str = "", violations: Violations | None = None) -> dict[str, Any]:
        """The body members alone, from an already decoded object; raises ShapeViolation when `violations` is None."""
        found = Violations() if violations is None else violations
        parsed = self._parse_body(value, path, found)
        if violations is None and found:
            raise ShapeViolation(found)
        return parsed or {}

    def write(self, value: Mapping[str, Any]) -> bytes:
        """The response body of a JSON operation."""
        return msgspec.json.encode(self._write_output(value))


class Service:
    """The operations of one service, and the HTTP status of each of its exceptions."""

    def __init__(self, name: str, operations: tuple[str, ...], *, resolved: tuple[str, ...] = ()) -> None:
        model = load_service(name)
        compiler = ShapeCompiler()
        self.operations = {
            each: OperationShapes(model.operation_model(each), compiler, resolved) for each in operations
        }
        self.statuses: dict[str, int] = {
            shape.name: shape.metadata["error"]["httpStatusCode"]
            for shape in model.error_shapes
            if shape.metadata.get("error")
        }

    def __getitem__(self, operation: str) -> OperationShapes:
        return self.operations[operation]
