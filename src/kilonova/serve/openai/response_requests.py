"""Request bodies of the responses API as typed structures."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from kilonova.core.errors import InvalidRequest
from kilonova.core.types import ContextPolicy
from kilonova.serve.context import ContextManagement
from kilonova.serve.openai.formats import TextConfig
from kilonova.serve.openai.requests import StreamOptions, TopLogprobs, check_reasoning_effort
from kilonova.serve.openai.sampling import SamplingFields, refuse
from kilonova.serve.openai.tools import ChoiceName, ResponseTool, ToolChoiceObject

LOGPROBS = "message.output_text.logprobs"
# The others belong to items that are never made here.
Includable = Literal[
    "message.output_text.logprobs",
    "reasoning.encrypted_content",
    "message.input_image.image_url",
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
]


class ContentPart(Struct, omit_defaults=True):
    """A part of a message, or of a function's output; which members there are depends on its type."""

    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: str | None = None
    detail: str | None = None
    annotations: list[Any] | None = None
    logprobs: Any = None


class Item(Struct, omit_defaults=True):
    """An item of a conversation: a message, a function call, or the output of one.

    Which members there are depends on its type; others are ignored, as clients send back what they received.
    """

    type: str | None = None
    id: str | None = None
    status: str | None = None
    role: str | None = None
    content: str | list[ContentPart] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: str | list[ContentPart] | None = None


class Reasoning(Struct):
    """How much a model is to think first."""

    effort: str | None = None
    summary: Any = None
    generate_summary: Any = None


class ResponseRequest(SamplingFields, forbid_unknown_fields=True, kw_only=True):
    """POST /v1/responses."""

    input: str | list[Item]
    instructions: str | None = None
    previous_response_id: str | None = None
    max_output_tokens: Annotated[int, Meta(ge=1)] | None = None
    text: TextConfig | None = None
    tools: list[ResponseTool] | None = None
    tool_choice: ChoiceName | ToolChoiceObject | None = None
    parallel_tool_calls: bool | None = None
    top_logprobs: TopLogprobs | None = None
    include: list[Includable] | None = None
    store: bool | None = None
    truncation: Literal["auto", "disabled"] | None = None
    reasoning: Reasoning | None = None
    stream_options: StreamOptions | None = None
    # Counts calls of built-in tools, which there are none of.
    max_tool_calls: Any = None
    background: bool | None = None
    access_programs: Any = None
    # Ours; the API's own, a list of kinds of compaction, is refused.
    context_management: ContextManagement | list[Any] | None = None
    conversation: Any = None
    image: Any = None
    moderation: Any = None
    prompt: Any = None

    @property
    def logprobs(self) -> int | None:
        """How many alternatives are reported beside each token; None where nothing is."""
        return self.top_logprobs or 0 if LOGPROBS in (self.include or ()) or self.top_logprobs else None


class InputTokensRequest(ResponseRequest, forbid_unknown_fields=True, kw_only=True):
    """POST /v1/responses/input_tokens."""

    personality: Any = None


def check_response(request: ResponseRequest) -> None:
    """Raises InvalidRequest for parameters that ask for what is not here."""
    refuse(
        request,
        ("background", "access_programs", "conversation", "image", "moderation", "prompt"),
    )
    if isinstance(request.context_management, list) and request.context_management:
        message = "Compaction is not supported by this server. Give an object with a 'strategy'; see docs/context.md."
        raise InvalidRequest(message, field="context_management")
    if request.reasoning is not None:
        check_reasoning_effort(request.reasoning.effort, "reasoning.effort")
    if not request.input:
        raise InvalidRequest("The input is empty. Give a text or at least one item.", field="input")


def to_context(request: ResponseRequest) -> ContextPolicy | None:
    """What a request says about an input that does not fit; `truncation` is the API's own way to say it."""
    if isinstance(request.context_management, ContextManagement):
        return request.context_management.policy()
    if request.truncation is None:
        return None
    return ContextPolicy(strategy="truncate_oldest" if request.truncation == "auto" else "none")
