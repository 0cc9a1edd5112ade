"""Botocore's service models, compiled once, so that nothing of them is walked while a request is served."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from botocore.loaders import Loader
from botocore.model import OperationModel, ServiceModel, Shape

from kilonova.core.errors import InvalidRequest
from kilonova.serve.bedrock.shape_parsers import Parse, ParserCompiler, ShapeViolation, Violations, from_text
from kilonova.serve.bedrock.shape_writers import Write, WriterCompiler

__all__ = ["MalformedBody", "OperationShapes", "Service", "ShapeViolation", "decode_object"]


class MalformedBody(InvalidRequest):
    """A request's body is not JSON, or not a JSON object."""


def load_service(name: str) -> ServiceModel:
    """Botocore's newest model of the service `name` (`bedrock-runtime`, `bedrock`)."""
    return ServiceModel(Loader().load_service_model(name, "service-2"), name)


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
    """One operation: `parse` reads a request and `write` a response.

    Of a streamed one `events` writes the events, and `exceptions` names those that may come as frames. Members named in
    `resolved` are left to the caller, who takes more forms of them than the shape admits.
    """

    def __init__(
        self, operation: OperationModel, parsers: ParserCompiler, writers: WriterCompiler, resolved: tuple[str, ...]
    ) -> None:
        self.name = operation.name
        shape = operation.input_shape
        self._payload = shape.serialization.get("payload")
        body: dict[str, Shape] = {}
        self._located: list[tuple[str, str, str, Parse, Callable[[str], Any]]] = []
        for name, member in shape.members.items():
            if name in resolved:
                continue
            location = member.serialization.get("location")
            if location is not None:
                wire_name = member.serialization.get("name", name)
                wire_name = wire_name.lower() if location == "header" else wire_name
                self._located.append((location, wire_name, name, parsers.parser(member), from_text(member)))
            elif name != self._payload:
                body[name] = member
        self._required_located = [name for _, _, name, _, _ in self._located if name in shape.required_members]
        self._parse_body = parsers.structure_parser(body, [name for name in shape.required_members if name in body])
        self._write_output = writers.writer(operation.output_shape)
        self.events: dict[str, Write] = {}
        self.exceptions: frozenset[str] = frozenset()
        if operation.has_event_stream_output:
            members = operation.get_event_stream_output().members
            self.exceptions = frozenset(name for name, event in members.items() if event.metadata.get("exception"))
            self.events = {
                name: writers.writer(event) for name, event in members.items() if name not in self.exceptions
            }

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
        for location, wire_name, name, parse, read in self._located:
            text = sources[location].get(wire_name)
            if text is not None:
                parameters[name] = parse(read(text), name, violations)
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
        self._model = load_service(name)
        self._parsers = ParserCompiler()
        writers = WriterCompiler()
        self.operations = {
            each: OperationShapes(self._model.operation_model(each), self._parsers, writers, resolved)
            for each in operations
        }
        self.statuses: dict[str, int] = {
            shape.name: shape.metadata["error"]["httpStatusCode"]
            for shape in self._model.error_shapes
            if shape.metadata.get("error")
        }

    def __getitem__(self, operation: str) -> OperationShapes:
        return self.operations[operation]

    def checker(self, shape: str) -> Callable[[Any, str], Any]:
        """The parser of a shape by its name, as `(value, path) -> parsed`, which raises ShapeViolation."""
        parse = self._parsers.parser(self._model.shape_for(shape))

        def check(value: Any, path: str) -> Any:
            violations = Violations()
            parsed = parse(value, path, violations)
            if violations:
                raise ShapeViolation(violations)
            return parsed

        return check
