"""The vocabulary every floor shares: messages, requests, events and usage.

Wire protocols translate into and out of these types and add no logic of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["system", "user", "assistant"]
StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use", "model_context_window_exceeded"]
Modality = Literal["text", "image", "video", "document"]

# The label of a position on which no loss is taken.
IGNORE_INDEX = -100


@dataclass(frozen=True, slots=True)
class TextBlock:
    """A run of text."""

    text: str


@dataclass(frozen=True, slots=True)
class MediaBlock:
    """A picture, film or document, still encoded.

    `format` is the container or file type (`png`, `mp4`, `pdf`), `data` the file's bytes, and `name` the
    document's name where the protocol gives one.
    """

    modality: Literal["image", "video", "document"]
    format: str
    data: bytes
    name: str | None = None


@dataclass(frozen=True, slots=True)
class ToolUseBlock:
    """A call the assistant makes: `input` is the JSON object of arguments."""

    id: str
    name: str
    input: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ToolResultBlock:
    """The answer to the call `tool_use_id`, given in a user turn."""

    tool_use_id: str
    content: tuple[TextBlock | MediaBlock, ...]
    is_error: bool = False


ContentBlock = TextBlock | MediaBlock | ToolUseBlock | ToolResultBlock


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: tuple[ContentBlock, ...]

    @property
    def text(self) -> str:
        """The text blocks of the turn, joined."""
        return "".join(block.text for block in self.content if isinstance(block, TextBlock))


@dataclass(frozen=True, slots=True)
class Tool:
    """A function the model may call; `parameters` is the JSON schema of its arguments."""

    name: str
    description: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How the next token is chosen.

    `temperature` 0 is greedy; `top_k` 0 and `top_p` 1 switch those filters off. `max_tokens` None means as many as
    the context holds. `logprobs` is the number of alternatives reported beside each chosen token (None: report
    nothing, 0: the chosen token alone). Log-probabilities are of the unfiltered distribution at temperature 1.
    The same `seed` draws the same numbers whatever else is in the batch; None takes a fresh one.
    `prompt_logprobs` asks for the same report for every prompt token but the first.
    """

    max_tokens: int | None = None
    temperature: float = 0.7
    top_p: float = 0.9
    top_k: int = 0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    prompt_logprobs: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """What to generate: a conversation (`messages`), or a raw `prompt` of text or token ids, never both.

    A conversation that ends with an assistant turn asks the model to continue that turn.
    """

    model: str
    messages: tuple[Message, ...] = ()
    prompt: str | tuple[int, ...] | None = None
    tools: tuple[Tool, ...] = ()
    sampling: SamplingParams = field(default_factory=SamplingParams)


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token, its natural-log probability, and the most likely alternatives, best first."""

    token_id: int
    text: str
    logprob: float
    top: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens counted for one request."""

    input_tokens: int
    output_tokens: int

    @property
    def total_tokens(self) -> int:
        return self.input_tokens + self.output_tokens


@dataclass(frozen=True, slots=True)
class PromptProcessed:
    """The prompt is in the cache and the first token follows.

    `logprobs` holds one entry a prompt token when `prompt_logprobs` was asked for (the first is None, as it has no
    context), else is empty.
    """

    input_tokens: int
    logprobs: tuple[TokenLogprob | None, ...] = ()
    token_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class TextDelta:
    """New text, always whole characters, with the tokens it came from when `logprobs` was asked for."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class ToolUse:
    """A complete tool call."""

    block: ToolUseBlock


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event of a generation that was not cancelled.

    `stop_sequence` is the one that matched. Times are in seconds since the request arrived.
    """

    stop_reason: StopReason
    usage: Usage
    stop_sequence: str | None = None
    time_to_first_token: float = 0.0
    latency: float = 0.0


GenerationEvent = PromptProcessed | TextDelta | ToolUse | Finished
