"""Request bodies of the OpenAI API as typed structures, and their sampling parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from msgspec import Meta, Struct

from kilonova.core.errors import InvalidRequest
from kilonova.core.types import SamplingParams
from kilonova.serve.conversation import check_max_tokens, default_max_tokens, nucleus

if TYPE_CHECKING:
    from kilonova.models.registry import ModelEntry

MAX_CHOICES = 128

TokenId = Annotated[int, Meta(ge=0)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]


class StreamOptions(Struct):
    """`include_usage` adds a last chunk that holds the usage alone."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class SamplingFields(Struct, kw_only=True):
    """What chat and plain completions share. Members whose type is Any carry nothing that changes the answer."""

    model: str
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=-1)] | None = None
    n: Annotated[int, Meta(ge=1, le=MAX_CHOICES)] | None = None
    stop: str | list[str] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    logit_bias: dict[str, float] | None = None
    # Not OpenAI's: vLLM's and SGLang's name for going on until max_tokens, which load generators ask for.
    ignore_eos: bool | None = None
    user: Any = None


class ImageURL(Struct):
    """A `data:` URL of a picture, or an address."""

    url: str
    detail: str | None = None


class TextPart(Struct, tag_field="type", tag="text"):
    """A run of text."""

    text: str


class ImagePart(Struct, tag_field="type", tag="image_url"):
    """A picture."""

    image_url: ImageURL


class AudioPart(Struct, tag_field="type", tag="input_audio"):
    """A sound."""

    input_audio: Any = None


class FilePart(Struct, tag_field="type", tag="file"):
    """A document."""

    file: Any = None


class RefusalPart(Struct, tag_field="type", tag="refusal"):
    """What an assistant said in refusing."""

    refusal: str


class FunctionCall(Struct):
    """A function's name, and its arguments as a JSON object in a string."""

    name: str
    arguments: str


class ToolCall(Struct):
    """A call in an assistant's message."""

    id: str
    function: FunctionCall
    type: Literal["function"] = "function"


class ChatMessage(Struct):
    """One message; members other than these are ignored, as clients send back what they received."""

    role: str
    content: str | list[TextPart | ImagePart | AudioPart | FilePart | RefusalPart] | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None


class Function(Struct):
    """A function the model may call, with the JSON schema of its arguments."""

    name: Annotated[str, Meta(pattern="^[a-zA-Z0-9_.-]{1,64}$")]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class FunctionTool(Struct):
    """A tool; only functions are known."""

    type: Literal["function"]
    function: Function


class ChatRequest(SamplingFields, forbid_unknown_fields=True, kw_only=True):
    """POST /v1/chat/completions."""

    messages: list[ChatMessage]
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Meta(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    tools: list[FunctionTool] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    response_format: dict[str, Any] | None = None
    modalities: list[str] | None = None
    metadata: Any = None
    store: Any = None
    service_tier: Any = None
    safety_identifier: Any = None
    prompt_cache_key: Any = None
    prompt_cache_retention: Any = None
    prediction: Any = None
    verbosity: Any = None


class CompletionRequest(SamplingFields, forbid_unknown_fields=True, kw_only=True):
    """POST /v1/completions. A prompt is text or token ids; a list of prompts gives `n` choices for each."""

    prompt: str | list[str | TokenId | list[TokenId]]
    max_tokens: Annotated[int, Meta(ge=0)] | None = None
    logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    echo: bool | None = None
    best_of: int | None = None
    suffix: str | None = None


def check_supported(request: SamplingFields) -> None:
    """Raises InvalidRequest for sampling fields whose effect the engine does not have."""
    for name in ("frequency_penalty", "presence_penalty", "logit_bias"):
        if getattr(request, name):
            raise InvalidRequest(f"'{name}' is not supported with this model.", field=name)
    if request.stream_options is not None and not request.stream:
        raise InvalidRequest(
            "The 'stream_options' parameter is only allowed when 'stream' is true.", field="stream_options"
        )


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
    )
