"""Tokens and times of an answer under the names of Converse, of the models' own JSON, of headers and of chunks.

Bedrock's input tokens leave out those that were read from the prefix cache or written for a cache point, which it
counts apart; the total holds all of them.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from kilonova.core.types import Finished, Usage
from kilonova.serve.bedrock.cache_points import TTLS

_TTL_NAMES = {seconds: name for name, seconds in TTLS.items()}


def milliseconds(seconds: float) -> int:
    """Whole milliseconds, as every time of the service is given in."""
    return round(seconds * 1000)


def converse_usage(usage: Usage, ttls: Collection[int] = ()) -> dict[str, Any]:
    """Converse's `TokenUsage`; `ttls` are those of the request's cache points.

    Writes are told apart by their time only where all points have the same.
    """
    written = usage.cache_write_input_tokens
    named: dict[str, Any] = {
        "inputTokens": usage.uncached_input_tokens,
        "outputTokens": usage.output_tokens,
        "totalTokens": usage.total_tokens,
        "cacheReadInputTokens": usage.cache_read_input_tokens,
        "cacheWriteInputTokens": written,
    }
    if written and len(set(ttls)) == 1:
        named["cacheDetails"] = [{"ttl": _TTL_NAMES[next(iter(ttls))], "inputTokens": written}]
    return named


def native_usage(usage: Usage) -> dict[str, int]:
    """Usage as the models' own JSON names it."""
    return {
        "inputTokens": usage.uncached_input_tokens,
        "outputTokens": usage.output_tokens,
        "totalTokens": usage.total_tokens,
        "cacheReadInputTokenCount": usage.cache_read_input_tokens,
        "cacheWriteInputTokenCount": usage.cache_write_input_tokens,
    }


def invocation_metrics(finished: Finished) -> dict[str, int]:
    """The figures that the service adds to the last chunk of InvokeModelWithResponseStream."""
    usage = finished.usage
    return {
        "inputTokenCount": usage.uncached_input_tokens,
        "outputTokenCount": usage.output_tokens,
        "invocationLatency": milliseconds(finished.latency),
        "firstByteLatency": milliseconds(finished.time_to_first_token),
        "cacheReadInputTokenCount": usage.cache_read_input_tokens,
        "cacheWriteInputTokenCount": usage.cache_write_input_tokens,
    }


def count_headers(finished: Finished) -> dict[str, str]:
    """The headers of a whole answer."""
    usage = finished.usage
    counts = {
        "Input-Token-Count": usage.uncached_input_tokens,
        "Output-Token-Count": usage.output_tokens,
        "Cache-Read-Input-Token-Count": usage.cache_read_input_tokens,
        "Cache-Write-Input-Token-Count": usage.cache_write_input_tokens,
        "Invocation-Latency": milliseconds(finished.latency),
    }
    return {f"X-Amzn-Bedrock-{name}": str(count) for name, count in counts.items()}
