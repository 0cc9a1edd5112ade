"""Pieces of the OpenAI wire format that chat and plain completions share."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import msgspec

from kilonova.core.types import Finished, GenerationRequest, StopReason
from kilonova.serve.openai.errors import to_openai_error

SSE_MEDIA_TYPE = "text/event-stream; charset=utf-8"
SSE_HEADERS = {"cache-control": "no-cache"}
SSE_DONE = b"data: [DONE]\n\n"

FINISH_REASONS: dict[StopReason, str] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
}

# What the API reports in place of log 0, which JSON cannot hold.
_LOWEST_LOGPROB = -9999.0


def sse(value: Any) -> bytes:
    """One server-sent event with a JSON payload."""
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


def sse_error(error: Exception) -> bytes:
    """An error in a stream that has already begun."""
    return sse(to_openai_error(error).body)


def finite(logprob: float) -> float:
    """A log-probability that JSON can hold."""
    return logprob if math.isfinite(logprob) else _LOWEST_LOGPROB


def to_usage(prompt_tokens: int, finished: Sequence[Finished]) -> dict[str, Any]:
    """The usage of all choices; a prompt that several choices share counts once."""
    completion_tokens = sum(each.usage.output_tokens for each in finished)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": 0},
    }


def with_choice_seeds(request: GenerationRequest, n: int) -> list[GenerationRequest]:
    """The same request for each of `n` choices; a given seed goes up by one a choice, so that they differ."""
    seed = request.sampling.seed
    if seed is None:
        return [request] * n
    return [
        dataclasses.replace(request, sampling=dataclasses.replace(request.sampling, seed=seed + index))
        for index in range(n)
    ]
