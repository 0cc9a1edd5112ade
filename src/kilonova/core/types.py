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
ServiceTier = Literal["priority", "default", "flex"]

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


@dataclass(frozen=True, slots=True)
class CachePointBlock:
    """Everything before this point is to stay in the prefix cache until `ttl` seconds after its last use.

    It says nothing to the model. Only whole blocks of the cache are kept.
    """

    ttl: int = 300


ContentBlock = TextBlock | MediaBlock | ToolUseBlock | ToolResultBlock | CachePointBlock


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
    """A function the model may call; `parameters` is the JSON schema of its arguments.

    Calls fit the schema. What of it cannot be enforced (see docs/engine.md) is ignored, or with `strict` refused.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    strict: bool = False


@dataclass(frozen=True, slots=True)
class NamedTool:
    """The choice of one tool, which must be called."""

    name: str


# Whether tools are called as the model sees fit, at least once, or not at all; or which one is called.
ToolChoice = Literal["auto", "required", "none"] | NamedTool


@dataclass(frozen=True, slots=True)
class Grammar:
    """What the text of an answer must match, from its first character to its last.

    `source` is a JSON schema (`json_schema`), a regular expression (`regex`), the allowed texts (`choice`), a grammar
    in llguidance's dialect of Lark (`lark`), or None for any JSON object (`json_object`).
    """

    kind: Literal["json_schema", "json_object", "regex", "choice", "lark"]
    source: Mapping[str, Any] | str | tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How the next token is chosen.

    `temperature` 0 is greedy; `top_k` 0 and `top_p` 1 switch those filters off. `max_tokens` None means as many as
    the context holds. `logprobs` is the number of alternatives reported beside each chosen token (None: report
    nothing, 0: the chosen token alone). Log-probabilities are of the unfiltered distribution at temperature 1.
    The same `seed` draws the same numbers whatever else is in the batch; None takes a fresh one.
    `prompt_logprobs` asks for the same report for every prompt token but the first. With `ignore_eos` the model's own
    end does not stop it, so that measurements have answers of equal length.

    `frequency_penalty` and `presence_penalty` are subtracted from the logits of generated tokens, for each time and
    once; `repetition_penalty` divides positive and multiplies negative logits of tokens of prompt and answer (1: off);
    `logit_bias` adds to the logits of token ids; `min_p` drops tokens less likely than that share of the likeliest.
    All of them act before temperature and the other filters. Tokens that a grammar rules out are never drawn, whatever
    the others do.
    """

    max_tokens: int | None = None
    temperature: float = 0.7
    top_p: float = 0.9
    top_k: int = 0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    ignore_eos: bool = False
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repetition_penalty: float = 1.0
    min_p: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)


# What becomes of a conversation that does not fit the context: an error, its oldest exchanges dropped, those between
# its first and its newest ones dropped, or its oldest exchanges replaced by a summary.
ContextStrategy = Literal["none", "truncate_oldest", "sliding_window", "summarize"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextPolicy:
    """How a prompt is made to fit the context.

    `sinks` is what a sliding window keeps of the beginning: exchanges of a conversation (None: 1), tokens of a raw
    prompt (None: 4). `reserve` tokens are left free for the answer; None leaves room for `max_tokens`, but no more than
    a quarter of the context unless the answer must have them.
    """

    strategy: ContextStrategy = "none"
    sinks: int | None = None
    reserve: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """What to generate: a conversation (`messages`), or a raw `prompt` of text or token ids, never both.

    A conversation that ends with an assistant turn asks the model to continue that turn. Among waiting requests those
    of a higher `service_tier` go first, and within a tier those of different `tenant`s take turns. Tenants share no
    cached prefixes. `adapter` is the name of one that the engine knows; empty for the model alone. Calls of tools
    always fit their schemas, and with a `grammar` the text fits that; with both, the answer is one or the other.
    `context` is for whoever hands the request to an engine (None: what its key says); the engine itself refuses what
    does not fit. Prefixes are reused in any case; without `counts_cached` usage keeps silent about it.
    """

    model: str
    messages: tuple[Message, ...] = ()
    prompt: str | tuple[int, ...] | None = None
    tools: tuple[Tool, ...] = ()
    sampling: SamplingParams = field(default_factory=SamplingParams)
    service_tier: ServiceTier = "default"
    tenant: str = ""
    adapter: str = ""
    tool_choice: ToolChoice = "auto"
    parallel_tool_calls: bool = True
    grammar: Grammar | None = None
    counts_cached: bool = True
    context: ContextPolicy | None = None


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token, its natural-log probability, and the most likely alternatives, best first."""

    token_id: int
    text: str
    logprob: float
    top: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens counted for one request.

    `input_tokens` is the whole prompt. Of these, `cache_read_input_tokens` were found in the prefix cache, with or
    without a cache point, and `cache_write_input_tokens` were computed and kept for a `CachePointBlock`; the two never
    overlap. Bedrock's `TokenUsage.inputTokens` leaves both out: it is `uncached_input_tokens`, so that the total is the
    same either way. OpenAI's `prompt_tokens` is `input_tokens`, its `cached_tokens` is `cache_read_input_tokens`.
    """

    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int = 0
    cache_write_input_tokens: int = 0

    @property
    def uncached_input_tokens(self) -> int:
        return self.input_tokens - self.cache_read_input_tokens - self.cache_write_input_tokens

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
class ToolUseStart:
    """A tool call begins; its input follows in pieces."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class ToolInputDelta:
    """A piece of the JSON text of the input of the call that began last.

    No piece is ever taken back. A call that `max_tokens` or the context cuts off has no `ToolUse`.
    """

    text: str


@dataclass(frozen=True, slots=True)
class ToolUse:
    """A complete tool call: the one whose start and pieces came just before."""

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


GenerationEvent = PromptProcessed | TextDelta | ToolUseStart | ToolInputDelta | ToolUse | Finished
