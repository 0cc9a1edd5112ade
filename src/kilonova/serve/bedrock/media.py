"""Pictures, films and documents of Converse's blocks, to the core vocabulary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kilonova.core.types import MediaBlock
from kilonova.serve.bedrock.invalid import unsupported

MEDIA = ("image", "video", "document")


def to_media(kind: Any, value: Mapping[str, Any], path: str) -> MediaBlock:
    """The core block of the parsed block of a `kind` in `MEDIA` at `path`; raises InvalidRequest for a source in S3."""
    source = value["source"]
    data = source.get("bytes")
    if data is None and kind == "document" and "text" in source:
        data = source["text"].encode()
    if data is None:
        raise unsupported(f"{path}.source.{next(iter(source))}")
    return MediaBlock(kind, value.get("format", ""), data, value.get("name"))
