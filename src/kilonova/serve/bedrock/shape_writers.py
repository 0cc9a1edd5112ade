"""Response shapes of botocore's service models, compiled into closures that write their JSON form."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from botocore.model import ListShape, MapShape, Shape, StructureShape

Write = Callable[[Any], Any]


class WriterCompiler:
    """Compiles the shapes of one service, each once; recursive shapes refer to themselves by name."""

    def __init__(self) -> None:
        self._writers: dict[str, Write] = {}

    def writer(self, shape: Shape) -> Write:
        """The closure `value -> JSON form` of a shape; members whose value is None are left out.

        It raises KeyError for a member that the shape does not declare, and ValueError where a required one is missing.
        """
        key = f"{shape.name} {shape.serialization.get('timestampFormat', '')}"
        known = self._writers.get(key)
        if known is not None:
            return known
        self._writers[key] = lambda value: self._writers[key](value)
        self._writers[key] = compiled = self._compile(shape)
        return compiled

    def _compile(self, shape: Shape) -> Write:
        if isinstance(shape, StructureShape):
            return _as_is if shape.is_document_type else self._structure(shape)
        if isinstance(shape, ListShape):
            member = self.writer(shape.member)
            return lambda values: [member(value) for value in values]
        if isinstance(shape, MapShape):
            item = self.writer(shape.value)
            return lambda values: {key: item(value) for key, value in values.items()}
        if shape.type_name == "blob":
            return _blob
        if shape.type_name == "timestamp":
            iso8601 = shape.serialization.get("timestampFormat") == "iso8601"
            return _iso8601 if iso8601 else datetime.timestamp
        return _as_is

    def _structure(self, shape: StructureShape) -> Write:
        writers = {name: self.writer(member) for name, member in shape.members.items()}
        required = shape.required_members

        def write(value: Mapping[str, Any]) -> dict[str, Any]:
            written = {name: writers[name](item) for name, item in value.items() if item is not None}
            for name in required:
                if name not in written:
                    raise ValueError(f"{shape.name} lacks its required member {name!r}")
            return written

        return write


def _as_is(value: Any) -> Any:
    return value


def _blob(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _iso8601(value: datetime) -> str:
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
