"""A request's tokens and limits, settled before it is queued."""

from __future__ import annotations

from collections.abc import Mapping

from kilonova.core.errors import ContextLengthExceeded, InvalidRequest
from kilonova.core.types import (
    CachePointBlock,
    GenerationRequest,
    MediaBlock,
    NamedTool,
    SamplingParams,
    ToolResultBlock,
)
from kilonova.engine.scheduler import PRIORITIES
from kilonova.text.tokenizer import Tokenizer

MAX_STOP_SEQUENCES = 2500
MAX_LOGPROBS = 20
MAX_CACHE_POINTS = 4
MAX_CACHE_SECONDS = 86_400
MAX_TOOLS = 256
MAX_BIAS = 100


def encode_prompt(request: GenerationRequest, tokenizer: Tokenizer, vocab_size: int) -> list[int]:
    """The tokens that `request` starts from. Raises InvalidRequest as `check_request`, and for none at all."""
    check_request(request, vocab_size)
    if request.prompt is None:
        return tokenizer.encode_chat(request.messages, request.tools)
    prompt = request.prompt
    token_ids = tokenizer.encode(prompt, allow_special=True) if isinstance(prompt, str) else list(prompt)
    if not token_ids:
        raise InvalidRequest("prompt must hold at least one token", field="prompt")
    return token_ids


def check_context(prompt_length: int, max_tokens: int | None, context_length: int) -> None:
    """Raise ContextLengthExceeded, which names the field, unless the prompt and what it asks for fit."""
    wanted = 1 if max_tokens is None else max_tokens
    if prompt_length + min(wanted, 1) > context_length:
        field_at_fault = "prompt"
    elif prompt_length + wanted > context_length:
        field_at_fault = "max_tokens"
    else:
        return
    generated = f" and max_tokens of {max_tokens}" if max_tokens else ""
    raise ContextLengthExceeded(
        f"the context holds {context_length} tokens; the prompt of {prompt_length}{generated} exceed it",
        field=field_at_fault,
    )


def check_request(request: GenerationRequest, vocab_size: int) -> None:
    """Raise InvalidRequest, which names the field and what is allowed, unless the engine can run `request`."""
    if (request.prompt is None) == (not request.messages):
        raise InvalidRequest("give either messages or a prompt, and not both", field="messages")
    for turn, message in enumerate(request.messages):
        for position, block in enumerate(message.content):
            parts = block.content if isinstance(block, ToolResultBlock) else (block,)
            for part in parts:
                if isinstance(part, MediaBlock):
                    raise InvalidRequest(
                        f"this model reads text only, not {part.modality} content",
                        field=f"messages.{turn}.content.{position}",
                    )
    _check_cache_points(request)
    tier = request.service_tier
    _check(tier in PRIORITIES, "service_tier", f"one of {', '.join(PRIORITIES)}", tier)
    if isinstance(request.prompt, tuple):
        for position, token in enumerate(request.prompt):
            if not isinstance(token, int) or not 0 <= token < vocab_size:
                raise InvalidRequest(
                    f"token {token!r} is outside the vocabulary: ids are integers from 0 to {vocab_size - 1}",
                    field=f"prompt.{position}",
                )
    check_sampling(request.sampling, vocab_size)
    _check_tools(request)
    _check_grammar(request)


def _check_tools(request: GenerationRequest) -> None:
    count = len(request.tools)
    _check(count <= MAX_TOOLS, "tools", f"at most {MAX_TOOLS}", f"{count} tools")
    names: set[str] = set()
    for position, tool in enumerate(request.tools):
        field = f"tools.{position}.name"
        _check(isinstance(tool.name, str) and tool.name != "", field, "a string that is not empty", tool.name)
        _check(tool.name not in names, field, "unlike those of the other tools", tool.name)
        names.add(tool.name)
    choice = request.tool_choice
    if isinstance(choice, NamedTool):
        _check(
            choice.name in names, "tool_choice", f"one of the tools ({', '.join(names) or 'there are none'})", choice
        )
    else:
        allowed = "auto, required, none or a named tool"
        _check(choice in ("auto", "required", "none"), "tool_choice", allowed, choice)
        _check(choice != "required" or bool(names), "tool_choice", "auto or none where there are no tools", choice)


def _check_grammar(request: GenerationRequest) -> None:
    grammar = request.grammar
    if grammar is None:
        return
    source = grammar.source
    if grammar.kind == "json_schema":
        _check(isinstance(source, Mapping), "grammar", "a JSON schema, which is an object", source)
    elif grammar.kind in ("regex", "lark"):
        _check(isinstance(source, str) and source != "", "grammar", "a string that is not empty", source)
    elif grammar.kind == "choice":
        valid = isinstance(source, tuple) and source and all(isinstance(text, str) and text for text in source)
        _check(bool(valid), "grammar", "a list of one or more strings, none of them empty", source)
    else:
        _check(grammar.kind == "json_object", "grammar", "of a known kind", grammar.kind)


def _check_cache_points(request: GenerationRequest) -> None:
    points = [block for message in request.messages for block in message.content if isinstance(block, CachePointBlock)]
    _check(len(points) <= MAX_CACHE_POINTS, "messages", f"with at most {MAX_CACHE_POINTS} cache points", len(points))
    for point in points:
        allowed = _is_integer(point.ttl) and 1 <= point.ttl <= MAX_CACHE_SECONDS
        _check(allowed, "ttl", f"an integer from 1 to {MAX_CACHE_SECONDS} seconds", point.ttl)


def check_sampling(sampling: SamplingParams, vocab_size: int) -> None:
    """Raise InvalidRequest, which names the field and its range, unless every parameter is within its range."""
    _check_penalties(sampling, vocab_size)
    temperature, top_p = sampling.temperature, sampling.top_p
    _check(_is_number(temperature) and 0 <= temperature <= 2, "temperature", "a number from 0 to 2", temperature)
    _check(_is_number(top_p) and 0 < top_p <= 1, "top_p", "a number above 0 and at most 1", top_p)
    _check(_is_integer(sampling.top_k) and sampling.top_k >= 0, "top_k", "an integer of at least 0", sampling.top_k)
    least = 0 if sampling.prompt_logprobs is not None else 1
    max_tokens = sampling.max_tokens
    _check(
        max_tokens is None or (_is_integer(max_tokens) and max_tokens >= least),
        "max_tokens",
        f"an integer of at least {least}" + ("" if least == 0 else " (0 only together with prompt_logprobs)"),
        max_tokens,
    )
    _check(sampling.seed is None or _is_integer(sampling.seed), "seed", "an integer", sampling.seed)
    for name, value in (("logprobs", sampling.logprobs), ("prompt_logprobs", sampling.prompt_logprobs)):
        allowed = value is None or (_is_integer(value) and 0 <= value <= MAX_LOGPROBS)
        _check(allowed, name, f"an integer from 0 to {MAX_LOGPROBS}", value)
    count = len(sampling.stop)
    _check(count <= MAX_STOP_SEQUENCES, "stop", f"at most {MAX_STOP_SEQUENCES} sequences", f"{count} sequences")
    for position, stop in enumerate(sampling.stop):
        _check(isinstance(stop, str) and stop != "", f"stop.{position}", "a string that is not empty", stop)


def _check_penalties(sampling: SamplingParams, vocab_size: int) -> None:
    for name, value in (
        ("frequency_penalty", sampling.frequency_penalty),
        ("presence_penalty", sampling.presence_penalty),
    ):
        _check(_is_number(value) and -2 <= value <= 2, name, "a number from -2 to 2", value)
    penalty, min_p = sampling.repetition_penalty, sampling.min_p
    allowed = "a number above 0 and at most 10"
    _check(_is_number(penalty) and 0 < penalty <= 10, "repetition_penalty", allowed, penalty)
    _check(_is_number(min_p) and 0 <= min_p <= 1, "min_p", "a number from 0 to 1", min_p)
    for token, bias in sampling.logit_bias.items():
        valid = _is_integer(token) and 0 <= token < vocab_size
        _check(valid, "logit_bias", f"by token ids, integers from 0 to {vocab_size - 1}", token)
        allowed = f"a number from -{MAX_BIAS} to {MAX_BIAS}"
        _check(_is_number(bias) and -MAX_BIAS <= bias <= MAX_BIAS, f"logit_bias.{token}", allowed, bias)


def _check(valid: bool, field: str, allowed: str, value: object) -> None:
    if not valid:
        raise InvalidRequest(f"{field} must be {allowed}; it is {value!r}", field=field)


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, float) or _is_integer(value)
