"""Bedrock conversations to and from the core vocabulary.

What comes in has passed its shape's parser: names and types are right, blobs are bytes. Conversion counts blocks from
zero in its errors, as the service does in the rules its shapes cannot express.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from kilonova.core.errors import InvalidRequest
from kilonova.core.types import (
    ContentBlock,
    GenerationRequest,
    MediaBlock,
    Message,
    SamplingParams,
    TextBlock,
    Tool,
    ToolResultBlock,
    ToolUseBlock,
)
from kilonova.serve.conversation import (
    check_conversation,
    check_max_tokens,
    check_text_is_not_blank,
    default_max_tokens,
    nucleus,
)

if TYPE_CHECKING:
    from kilonova.models.registry import ModelEntry

# What the family's models accept whatever their size; an answer ends where the context does.
MAX_TOKENS = 10_000
MAX_TOP_K = 128

_MEDIA = ("image", "video", "document")
_UNSUPPORTED_MEMBERS = ("guardrailConfig", "promptVariables", "outputConfig")


def unsupported(field: str) -> InvalidRequest:
    """The error for a member that the service has and this model does not."""
    return InvalidRequest(f"This model doesn't support the {field} field. Remove {field} and try again.", field=field)


def to_request(parameters: Mapping[str, Any], entry: ModelEntry, *, top_k: int = 0) -> GenerationRequest:
    """The core request of Converse's parsed parameters; raises InvalidRequest for what the model cannot do."""
    for member in _UNSUPPORTED_MEMBERS:
        if parameters.get(member):
            raise unsupported(member)
    tools = _to_tools(parameters.get("toolConfig"))
    messages = tuple(_to_message(message, turn) for turn, message in enumerate(parameters.get("messages", ())))
    check_conversation(messages, tools, entry)
    _check_turns(messages)
    if not tools and any(
        isinstance(block, (ToolUseBlock, ToolResultBlock)) for message in messages for block in message.content
    ):
        raise InvalidRequest(
            "The toolConfig field must be defined when using toolUse and toolResult content blocks.", field="toolConfig"
        )
    system = _to_system(parameters.get("system", ()))
    return GenerationRequest(
        model=entry.name,
        adapter=entry.adapter,
        messages=(Message("system", system), *messages) if system else messages,
        tools=tools,
        sampling=_to_sampling(parameters.get("inferenceConfig", {}), entry, top_k),
    )


def additional_top_k(fields: Any) -> int:
    """`topK` of Converse's `additionalModelRequestFields`, 0 when unset; raises InvalidRequest for any other field."""
    path = "additionalModelRequestFields"
    if fields is None:
        return 0
    if not isinstance(fields, dict):
        raise InvalidRequest(f"The {path} field must be a JSON object.", field=path)
    for name in fields:
        if name != "inferenceConfig":
            raise extraneous(f"{path}.{name}", name)
    config = fields.get("inferenceConfig") or {}
    if not isinstance(config, dict):
        path = f"{path}.inferenceConfig"
        raise InvalidRequest(f"The {path} field must be a JSON object.", field=path)
    for name in config:
        if name not in ("topK", "top_k"):
            raise extraneous(f"{path}.inferenceConfig.{name}", name)
    name = "top_k" if "top_k" in config else "topK"
    return check_top_k(config.get(name), f"{path}.inferenceConfig.{name}")


def extraneous(field: str, name: str) -> InvalidRequest:
    """The error for a member of a model's own JSON that it does not know."""
    return InvalidRequest(
        f"Malformed input request: #: extraneous key [{name}] is not permitted, please reformat your input and try "
        f"again. ({field})",
        field=field,
    )


def check_top_k(value: Any, field: str) -> int:
    """A valid `topK` (0 to 128, 0 switches it off); None is 0."""
    if value is None:
        return 0
    if type(value) is not int or not 0 <= value <= MAX_TOP_K:
        shown = msgspec.json.encode(value).decode()
        raise InvalidRequest(
            f"1 validation error detected: Value '{shown}' at '{field}' failed to satisfy constraint: "
            f"Member must be an integer between 0 and {MAX_TOP_K}",
            field=field,
        )
    return value


def _to_sampling(config: Mapping[str, Any], entry: ModelEntry, top_k: int) -> SamplingParams:
    max_tokens = config.get("maxTokens")
    check_max_tokens(max_tokens, max(MAX_TOKENS, entry.max_output_tokens), "inferenceConfig.maxTokens")
    defaults = SamplingParams()
    top_p, top_k = nucleus(config.get("topP", defaults.top_p), top_k)
    return SamplingParams(
        max_tokens=default_max_tokens(entry) if max_tokens is None else max_tokens,
        temperature=config.get("temperature", defaults.temperature),
        top_p=top_p,
        top_k=top_k,
        stop=tuple(config.get("stopSequences", ())),
    )


def _check_turns(messages: Sequence[Message]) -> None:
    if messages[0].role != "user":
        raise InvalidRequest(
            "A conversation must start with a user message. Try again with a conversation that starts with a user "
            "message.",
            field="messages.0.role",
        )
    for turn, (before, after) in enumerate(itertools.pairwise(messages), 1):
        if before.role == after.role:
            raise InvalidRequest(
                "A conversation must alternate between user and assistant roles. Make sure the conversation alternates "
                "between user and assistant roles and try again.",
                field=f"messages.{turn}.role",
            )


def _to_system(blocks: Sequence[Mapping[str, Any]]) -> tuple[ContentBlock, ...]:
    texts = []
    for index, block in enumerate(blocks):
        if "text" in block:
            check_text_is_not_blank(block["text"], f"system.{index}")
            texts.append(block["text"])
        elif "cachePoint" not in block:
            raise unsupported(f"system.{index}.{next(iter(block))}")
    return (TextBlock("\n".join(texts)),) if texts else ()


def _to_message(message: Mapping[str, Any], turn: int) -> Message:
    path = f"messages.{turn}"
    if message["role"] == "system":
        raise InvalidRequest(
            f"The role system is not accepted at {path}. Use the system field and try again.", field=f"{path}.role"
        )
    blocks = []
    for index, block in enumerate(message["content"]):
        converted = _to_block(block, message["role"], f"{path}.content.{index}")
        if converted is not None:
            blocks.append(converted)
    return Message(message["role"], tuple(blocks))


def _to_block(block: Mapping[str, Any], role: str, path: str) -> ContentBlock | None:
    ((kind, value),) = block.items()
    if kind == "text":
        return TextBlock(value)
    if kind == "cachePoint":
        return None
    if kind == "toolUse" and role == "assistant":
        if not isinstance(value["input"], dict):
            raise InvalidRequest(
                f"The value at {path}.toolUse.input is not a JSON object. Give an object of arguments and try again.",
                field=f"{path}.toolUse.input",
            )
        return ToolUseBlock(value["toolUseId"], value["name"], value["input"])
    if kind == "toolResult" and role == "user":
        return ToolResultBlock(
            value["toolUseId"],
            tuple(
                _to_tool_result_part(part, f"{path}.toolResult.content.{index}")
                for index, part in enumerate(value["content"])
            ),
            is_error=value.get("status") == "error",
        )
    if kind in _MEDIA and role == "user":
        return _to_media(kind, value, f"{path}.{kind}")
    if kind in ("toolUse", "toolResult", *_MEDIA):
        raise InvalidRequest(f"A {role} message cannot hold {kind} content, at {path}.", field=f"{path}.{kind}")
    raise unsupported(f"{path}.{kind}")


def _to_media(kind: Any, value: Mapping[str, Any], path: str) -> MediaBlock:
    source = value["source"]
    data = source.get("bytes")
    if data is None and kind == "document" and "text" in source:
        data = source["text"].encode()
    if data is None:
        raise unsupported(f"{path}.source.{next(iter(source))}")
    return MediaBlock(kind, value.get("format", ""), data, value.get("name"))


def _to_tool_result_part(part: Mapping[str, Any], path: str) -> TextBlock | MediaBlock:
    ((kind, value),) = part.items()
    if kind == "text":
        return TextBlock(value)
    if kind == "json":
        return TextBlock(msgspec.json.encode(value).decode())
    if kind in _MEDIA:
        return _to_media(kind, value, f"{path}.{kind}")
    raise unsupported(f"{path}.{kind}")


def _to_tools(config: Mapping[str, Any] | None) -> tuple[Tool, ...]:
    if not config:
        return ()
    for choice in config.get("toolChoice", {}):
        if choice != "auto":
            raise unsupported(f"toolConfig.toolChoice.{choice}")
    tools = []
    for index, each in enumerate(config["tools"]):
        if "cachePoint" in each:
            continue
        path = f"toolConfig.tools.{index}"
        if "toolSpec" not in each:
            raise unsupported(f"{path}.{next(iter(each))}")
        specification = each["toolSpec"]
        if specification.get("strict"):
            raise unsupported(f"{path}.toolSpec.strict")
        schema = specification["inputSchema"]["json"]
        if not isinstance(schema, dict):
            raise InvalidRequest(
                f"The value at {path}.toolSpec.inputSchema.json must be a JSON schema object.",
                field=f"{path}.toolSpec.inputSchema.json",
            )
        tools.append(Tool(specification["name"], specification.get("description", ""), schema))
    return tuple(tools)


def from_content(content: Sequence[TextBlock | ToolUseBlock]) -> list[dict[str, Any]]:
    """Generated content as Bedrock's content blocks; a silent answer is one empty text block."""
    blocks: list[dict[str, Any]] = [
        {"text": block.text}
        if isinstance(block, TextBlock)
        else {"toolUse": {"toolUseId": block.id, "name": block.name, "input": dict(block.input)}}
        for block in content
    ]
    return blocks or [{"text": ""}]
