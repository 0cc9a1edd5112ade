"""Where the cache points of a conversation lie among its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from kilonova.core.errors import InvalidRequest
from kilonova.core.types import CachePointBlock, GenerationRequest
from kilonova.text.tokenizer import Tokenizer


class CachePoint(NamedTuple):
    """The first `num_tokens` of a prompt are to be kept until `ttl` seconds after their last use."""

    num_tokens: int
    ttl: float


def find_cache_points(tokenizer: Tokenizer, request: GenerationRequest, token_ids: Sequence[int]) -> list[CachePoint]:
    """The cache points of a request whose whole prompt is `token_ids`.

    A point lies after the tokens that the conversation up to it has in common with the whole. One at which the chat
    template does not accept the conversation as it stands is left out, and so is one with nothing before it.
    """
    points = []
    for turn, message in enumerate(request.messages):
        for position, block in enumerate(message.content):
            if not isinstance(block, CachePointBlock):
                continue
            content = message.content[:position]
            messages = request.messages[:turn] + ((replace(message, content=content),) if content else ())
            if not messages:
                continue
            try:
                before = tokenizer.encode_chat(messages, request.tools, add_generation_prompt=False)
            except InvalidRequest:
                continue
            points.append(CachePoint(_common_length(before, token_ids), block.ttl))
    return points


def _common_length(first: Sequence[int], second: Sequence[int]) -> int:
    pairs = zip(first, second, strict=False)
    return next((index for index, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))
