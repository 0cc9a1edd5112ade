"""Request bodies of chat and plain completions as typed structures."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from kilonova.core.errors import InvalidRequest
from kilonova.core.types import ContextPolicy
from kilonova.serve.context import ContextManagement
from kilonova.serve.openai.formats import ResponseFormat
from kilonova.serve.openai.sampling import SamplingFields, refuse
from kilonova.serve.openai.tools import ChatTool, ChoiceName, ToolChoiceObject

MAX_CHOICES = 128
MAX_LOGPROBS = 20

TokenId = Annotated[int, Meta(ge=0)]
TopLogprobs = Annotated[int, Meta(ge=0, le=MAX_LOGPROBS)]


class StreamOptions(Struct):
    """`include_usage` adds a last chunk that holds the usage alone; nothing is obfuscated, asked for or not.

    With `continuous_usage_stats`, vLLM's, each chunk of a chat holds the usage so far.
    """

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None
    include_obfuscation: bool | None = None


class CompletionFields(SamplingFields, kw_only=True):
    """What chat and plain completions share."""

    n: Annotated[int, Meta(ge=1, le=MAX_CHOICES)] | None = None
    stream_options: StreamOptions | None = None
    # Not OpenAI's: as vLLM reports them, and what becomes of prompts that do not fit.
    prompt_logprobs: TopLogprobs | None = None
    context_management: ContextManagement | None = None

    @property
    def context(self) -> ContextPolicy | None:
        """What the request says about prompts that do not fit."""
        return None if self.context_management is None else self.context_management.policy()

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with its usage."""
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def continuous_usage(self) -> bool:
        """Whether each chunk of a stream tells the usage so far."""
        return self.include_usage and bool(self.stream_options and self.stream_options.continuous_usage_stats)


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
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None


class ChatRequest(CompletionFields, forbid_unknown_fields=True, kw_only=True):
    """POST /v1/chat/completions."""

    messages: list[ChatMessage]
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Meta(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: TopLogprobs | None = None
    tools: list[ChatTool] | None = None
    tool_choice: ChoiceName | ToolChoiceObject | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    modalities: list[str] | None = None
    reasoning_effort: str | None = None
    verbosity: Literal["low", "medium", "high"] | None = None
    store: bool | None = None
    audio: Any = None
    function_call: Any = None
    functions: Any = None
    moderation: Any = None
    prediction: Any = None
    web_search_options: Any = None

    @property
    def max_tokens_field(self) -> str:
        """The name under which the most tokens were given."""
        return "max_tokens" if self.max_completion_tokens is None else "max_completion_tokens"


class CompletionRequest(CompletionFields, forbid_unknown_fields=True, kw_only=True):
    """POST /v1/completions. A prompt is text or token ids; a list of prompts gives `n` choices for each."""

    prompt: str | list[str | TokenId | list[TokenId]]
    max_tokens: Annotated[int, Meta(ge=0)] | None = None
    logprobs: TopLogprobs | None = None
    echo: bool | None = None
    best_of: int | None = None
    suffix: str | None = None


def check_chat(request: ChatRequest) -> None:
    """Raises InvalidRequest for parameters that do not go together, or ask for what is not here."""
    _check_stream_options(request)
    refuse(request, ("audio", "moderation", "prediction", "web_search_options"))
    for name, instead in (("functions", "tools"), ("function_call", "tool_choice")):
        if getattr(request, name) is not None:
            raise InvalidRequest(f"'{name}' is not supported: use '{instead}'.", field=name)
    if request.store:
        message = "Chat completions are not stored here. Use responses for that, or leave 'store' out."
        raise InvalidRequest(message, field="store")
    if request.modalities not in (None, ["text"]):
        raise InvalidRequest("This model supports the value ['text'] of 'modalities'.", field="modalities")
    check_reasoning_effort(request.reasoning_effort, "reasoning_effort")
    if request.top_logprobs is not None and not request.logprobs:
        raise InvalidRequest("'top_logprobs' is only allowed when 'logprobs' is true.", field="top_logprobs")


def check_completion(request: CompletionRequest) -> None:
    """Raises InvalidRequest for parameters that do not go together, or ask for what is not here."""
    _check_stream_options(request)
    if request.suffix:
        raise InvalidRequest("'suffix' is not supported: this model only continues text.", field="suffix")
    if request.best_of is not None and request.best_of != (request.n or 1):
        raise InvalidRequest("'best_of' is only supported at the value of 'n'.", field="best_of")
    if request.max_tokens == 0 and not request.echo and request.prompt_logprobs is None:
        raise InvalidRequest("'max_tokens' must be at least 1 unless 'echo' is true.", field="max_tokens")


def check_reasoning_effort(effort: str | None, field: str) -> None:
    """Raises InvalidRequest where a model is to think first."""
    if effort not in (None, "none"):
        raise InvalidRequest(f"This model does not reason: '{field}' can be 'none'.", field=field)


def _check_stream_options(request: CompletionFields) -> None:
    if request.stream_options is not None and not request.stream:
        raise InvalidRequest(
            "The 'stream_options' parameter is only allowed when 'stream' is true.", field="stream_options"
        )
