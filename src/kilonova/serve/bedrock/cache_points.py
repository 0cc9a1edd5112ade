"""Where Nova takes cache points, and for how long they hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kilonova.core.errors import InvalidRequest
from kilonova.core.types import CachePointBlock, Message
from kilonova.serve.bedrock.invalid import extraneous

MAX_CACHE_POINTS = 4

# Seconds from the last use on, by the names that the service has for them.
TTLS = {"5m": 300, "1h": 3600}
DEFAULT_TTL = "5m"


def to_cache_point(value: Mapping[str, Any]) -> CachePointBlock:
    """The core block of a parsed `cachePoint`."""
    return CachePointBlock(TTLS[value.get("ttl", DEFAULT_TTL)])


def check_follows_text(blocks: Sequence[Mapping[str, Any]], index: int, path: str) -> None:
    """Raises InvalidRequest, worded as Nova does, unless the cache point at `index` stands right after a text block."""
    if index == 0 or "text" not in blocks[index - 1]:
        raise extraneous(path, "cachePoint")


def cache_points(messages: Iterable[Message]) -> list[CachePointBlock]:
    """The cache points of a conversation in their order."""
    return [block for message in messages for block in message.content if isinstance(block, CachePointBlock)]


def check_cache_points(messages: Iterable[Message]) -> None:
    """Raises InvalidRequest for more cache points than a request may have."""
    count = len(cache_points(messages))
    if count > MAX_CACHE_POINTS:
        raise InvalidRequest(
            f"A request can have at most {MAX_CACHE_POINTS} cachePoint blocks, and this one has {count}. "
            "Remove some and try again.",
            field="cachePoint",
        )
