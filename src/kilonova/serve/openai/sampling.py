"""The parameters that every generating request of the OpenAI API shares, and what the core makes of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from msgspec import Meta, Struct

from kilonova.core.errors import InvalidRequest
from kilonova.core.types import SamplingParams, ServiceTier
from kilonova.serve.conversation import check_max_tokens, default_max_tokens, nucleus

if TYPE_CHECKING:
    from kilonova.models.registry import ModelEntry

Penalty = Annotated[float, Meta(ge=-2, le=2)]
Bias = Annotated[float, Meta(ge=-100, le=100)]
Metadata = Annotated[
    dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)]], Meta(max_length=16)
]

# As the API names them; `fast` is its newer name for `priority`.
RequestedTier = Literal["auto", "default", "flex", "priority", "fast"]
_TIERS: dict[RequestedTier | None, ServiceTier] = {
    None: "default",
    "auto": "default",
    "default": "default",
    "flex": "flex",
    "priority": "priority",
    "fast": "priority",
}


class StructuredOutputs(Struct, forbid_unknown_fields=True):
    """vLLM's `structured_outputs`: one of these is given."""

    json: dict[str, Any] | str | None = None
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None


class SamplingFields(Struct, kw_only=True):
    """What chat, plain completions and responses share. Members whose type is Any change nothing in the answer."""

    model: str
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    stop: str | list[str] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    stream: bool | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    logit_bias: dict[str, Bias] | None = None
    metadata: Metadata | None = None
    service_tier: RequestedTier | None = None
    user: Any = None
    safety_identifier: Any = None
    prompt_cache_key: Any = None
    prompt_cache_options: Any = None
    prompt_cache_retention: Any = None
    # Not OpenAI's: vLLM's names, which its clients, load generators and evaluation send.
    top_k: Annotated[int, Meta(ge=-1)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Meta(gt=0, le=2)] | None = None
    ignore_eos: bool | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: dict[str, Any] | str | None = None
    guided_regex: str | None = None
    guided_choice: list[str] | None = None
    guided_grammar: str | None = None


def refuse(request: Struct, names: Iterable[str]) -> None:
    """Raises InvalidRequest where one of the members `names`, which ask for what is not here, is given."""
    for name in names:
        if getattr(request, name) not in (None, False):
            raise InvalidRequest(f"'{name}' is not supported by this server.", field=name)


def to_service_tier(request: SamplingFields) -> ServiceTier:
    """The tier that a request is served in."""
    return _TIERS[request.service_tier]


def to_sampling(
    request: SamplingFields,
    entry: ModelEntry,
    *,
    max_tokens: int | None,
    max_tokens_field: str,
    logprobs: int | None,
    prompt_logprobs: int | None = None,
) -> SamplingParams:
    """The core sampling parameters; what the request leaves out takes the model's defaults."""
    check_max_tokens(max_tokens, entry.max_output_tokens, max_tokens_field)
    defaults = SamplingParams()
    top_p = defaults.top_p if request.top_p is None else request.top_p
    top_p, top_k = nucleus(top_p, max(0, request.top_k or 0))
    stop = [request.stop] if isinstance(request.stop, str) else request.stop or []
    if "" in stop:
        raise InvalidRequest("A stop sequence must not be empty.", field="stop")
    return SamplingParams(
        max_tokens=default_max_tokens(entry) if max_tokens is None else max_tokens,
        temperature=defaults.temperature if request.temperature is None else request.temperature,
        top_p=top_p,
        top_k=top_k,
        seed=request.seed,
        stop=tuple(stop),
        logprobs=logprobs,
        prompt_logprobs=prompt_logprobs,
        ignore_eos=bool(request.ignore_eos),
        frequency_penalty=request.frequency_penalty or 0.0,
        presence_penalty=request.presence_penalty or 0.0,
        repetition_penalty=1.0 if request.repetition_penalty is None else request.repetition_penalty,
        min_p=request.min_p or 0.0,
        logit_bias=_to_logit_bias(request.logit_bias or {}),
    )


def _to_logit_bias(bias: Mapping[str, float]) -> dict[int, float]:
    for token in bias:
        if not (token.isascii() and token.isdigit() and len(token) < 10):
            raise InvalidRequest(f"The keys must be token ids; {token!r} is not one.", field="logit_bias")
    return {int(token): value for token, value in bias.items()}
