"""Pieces of the OpenAI wire format that its endpoints share."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from kilonova.core.types import GenerationRequest, StopReason, TokenLogprob, ToolUseBlock, Usage
from kilonova.serve.call import Call
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


def sse(value: Any, event: str = "") -> bytes:
    """One server-sent event with a JSON payload, and a name where the endpoint's events have any."""
    name = f"event: {event}\n".encode() if event else b""
    return name + b"data: " + msgspec.json.encode(value) + b"\n\n"


def sse_error(call: Call, error: Exception) -> bytes:
    """The error that a stream which has already begun ends with; `call` is told."""
    answered = to_openai_error(error)
    call.error = answered.name
    return sse(answered.body, "error")


def finite(logprob: float) -> float:
    """A log-probability that JSON can hold."""
    return logprob if math.isfinite(logprob) else _LOWEST_LOGPROB


def from_logprobs(tokens: Sequence[TokenLogprob]) -> list[dict[str, Any]]:
    """The log-probabilities of chat's and responses' texts."""
    return [{**_token(token), "top_logprobs": [_token(other) for other in token.top]} for token in tokens]


def _token(token: TokenLogprob) -> dict[str, Any]:
    # A token that ends inside a character has no text of its own, hence no bytes to give.
    known = "\ufffd" not in token.text
    return {
        "token": token.text,
        "logprob": finite(token.logprob),
        "bytes": list(token.text.encode()) if known else None,
    }


def from_prompt_logprobs(tokens: Sequence[TokenLogprob | None]) -> list[dict[str, Any] | None]:
    """The log-probabilities of a prompt as vLLM reports them: by token id, with the rank where it is known."""
    return [None if token is None else _by_token_id(token) for token in tokens]


def _by_token_id(token: TokenLogprob) -> dict[str, Any]:
    ranks = {other.token_id: rank for rank, other in enumerate(token.top, 1)}
    return {
        str(each.token_id): {
            "logprob": finite(each.logprob),
            "rank": ranks.get(each.token_id),
            "decoded_token": each.text,
        }
        for each in {other.token_id: other for other in (*token.top, token)}.values()
    }


def from_tool_use(block: ToolUseBlock) -> dict[str, Any]:
    """A call as chat's `tool_calls` list it."""
    arguments = msgspec.json.encode(block.input).decode()
    return {"id": block.id, "type": "function", "function": {"name": block.name, "arguments": arguments}}


def to_usage(usages: Mapping[int, Usage], n: int) -> dict[str, Any]:
    """The usage of all choices, by index; a prompt that `n` choices share counts once."""
    prompts = [usage for index, usage in usages.items() if index % n == 0]
    prompt_tokens = sum(usage.input_tokens for usage in prompts)
    completion_tokens = sum(usage.output_tokens for usage in usages.values())
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {
            "audio_tokens": 0,
            "cached_tokens": sum(usage.cache_read_input_tokens for usage in prompts),
        },
        "completion_tokens_details": {
            "accepted_prediction_tokens": 0,
            "audio_tokens": 0,
            "reasoning_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
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
