"""Bedrock conversations to and from the core vocabulary.

What comes in has passed its shape's parser: names and types are right, blobs are bytes. Conversion counts blocks from
zero in its errors, as the service does in the rules its shapes cannot express.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kilonova.core.errors import InvalidRequest
from kilonova.core.types import ContentBlock, GenerationRequest, Message, TextBlock, ToolResultBlock, ToolUseBlock
from kilonova.serve.bedrock.cache_points import cache_points, check_cache_points, check_follows_text, to_cache_point
from kilonova.serve.bedrock.inference import ModelFields, parse_additional_fields, to_grammar, to_sampling
from kilonova.serve.bedrock.invalid import unsupported
from kilonova.serve.bedrock.media import MEDIA, to_media
from kilonova.serve.bedrock.tools import to_tool_choice, to_tool_result, to_tool_use, to_tools
from kilonova.serve.conversation import check_conversation, check_text_is_not_blank

if TYPE_CHECKING:
    from kilonova.models.registry import ModelEntry

_UNSUPPORTED_MEMBERS = ("guardrailConfig", "promptVariables")


def to_request(
    parameters: Mapping[str, Any], entry: ModelEntry, fields: ModelFields | None = None
) -> GenerationRequest:
    """The core request of Converse's parsed parameters; raises InvalidRequest for what the model cannot do.

    `fields` are what the model's own JSON adds; None reads them from `additionalModelRequestFields`. A text block may
    hold a parsed `cachePoint` beside its text, as it does in the model's own JSON.
    """
    for member in _UNSUPPORTED_MEMBERS:
        if parameters.get(member):
            raise unsupported(member)
    if fields is None:
        fields = parse_additional_fields(parameters.get("additionalModelRequestFields"))
    tool_config = parameters.get("toolConfig")
    tools = to_tools(tool_config)
    tool_choice = to_tool_choice(tool_config, tools)
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
    if system:
        messages = (Message("system", system), *messages)
    check_cache_points(messages)
    return GenerationRequest(
        model=entry.name,
        adapter=entry.adapter,
        messages=messages,
        tools=tools,
        tool_choice=tool_choice,
        grammar=to_grammar(parameters.get("outputConfig"), fields),
        context=fields.context,
        sampling=to_sampling(parameters.get("inferenceConfig", {}), fields, entry),
        # Prefixes that are reused without being asked for are neither reported nor cheaper, as on AWS.
        counts_cached=bool(cache_points(messages)),
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
    content: list[ContentBlock] = []
    separator = ""
    for index, block in enumerate(blocks):
        path = f"system.{index}"
        if "text" in block:
            check_text_is_not_blank(block["text"], path)
            content += _to_text(block, separator)
            separator = "\n"
        elif "cachePoint" in block:
            check_follows_text(blocks, index, path)
            content.append(to_cache_point(block["cachePoint"]))
        else:
            raise unsupported(f"{path}.{next(iter(block))}")
    return tuple(content)


def _to_text(block: Mapping[str, Any], separator: str = "") -> list[ContentBlock]:
    text = TextBlock(separator + block["text"])
    return [text, to_cache_point(block["cachePoint"])] if "cachePoint" in block else [text]


def _to_message(message: Mapping[str, Any], turn: int) -> Message:
    path = f"messages.{turn}"
    if message["role"] == "system":
        raise InvalidRequest(
            f"The role system is not accepted at {path}. Use the system field and try again.", field=f"{path}.role"
        )
    blocks = message["content"]
    content: list[ContentBlock] = []
    for index, block in enumerate(blocks):
        block_path = f"{path}.content.{index}"
        if "text" in block:
            content += _to_text(block)
        elif "cachePoint" in block:
            check_follows_text(blocks, index, block_path)
            content.append(to_cache_point(block["cachePoint"]))
        else:
            content.append(_to_block(block, message["role"], block_path))
    return Message(message["role"], tuple(content))


def _to_block(block: Mapping[str, Any], role: str, path: str) -> ContentBlock:
    ((kind, value),) = block.items()
    if kind == "toolUse" and role == "assistant":
        return to_tool_use(value, f"{path}.toolUse")
    if kind == "toolResult" and role == "user":
        return to_tool_result(value, f"{path}.toolResult")
    if kind in MEDIA and role == "user":
        return to_media(kind, value, f"{path}.{kind}")
    if kind in ("toolUse", "toolResult", *MEDIA):
        raise InvalidRequest(f"A {role} message cannot hold {kind} content, at {path}.", field=f"{path}.{kind}")
    raise unsupported(f"{path}.{kind}")


def from_content(content: Sequence[TextBlock | ToolUseBlock]) -> list[dict[str, Any]]:
    """Generated content as Bedrock's content blocks; a silent answer is one empty text block."""
    blocks: list[dict[str, Any]] = [
        {"text": block.text}
        if isinstance(block, TextBlock)
        else {"toolUse": {"toolUseId": block.id, "name": block.name, "input": dict(block.input)}}
        for block in content
    ]
    return blocks or [{"text": ""}]
