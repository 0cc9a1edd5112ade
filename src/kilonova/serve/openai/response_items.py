"""Items of the responses API: as they are kept and listed, and to the core vocabulary."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from kilonova.core.errors import InvalidRequest
from kilonova.core.types import ContentBlock, MediaBlock, Message, Role, TextBlock, Tool, ToolResultBlock
from kilonova.serve.conversation import check_conversation
from kilonova.serve.openai.messages import join_turns, to_image, to_tool_use
from kilonova.serve.openai.response_requests import ContentPart, Item

if TYPE_CHECKING:
    from kilonova.models.registry import ModelEntry

_ROLES: dict[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_PREFIXES = {"message": "msg", "function_call": "fc", "function_call_output": "fco"}
_REQUIRED = {
    "message": ("role", "content"),
    "function_call": ("call_id", "name", "arguments"),
    "function_call_output": ("call_id", "output"),
}
# The identifier of an item tells which response made it.
_ITEM_ID = re.compile(r"(?:msg|fc|fco)_([0-9a-f]{32})[0-9a-f]{4}")


def item_id(kind: str, response_id: str, index: int) -> str:
    """The identifier of the item `index` of a response, those of its input counted first."""
    return f"{_PREFIXES[kind]}_{response_id.removeprefix('resp_')}{index:04x}"


def response_of_item(item: str) -> str | None:
    """The response an item's identifier belongs to, where it is one of ours."""
    match = _ITEM_ID.fullmatch(item)
    return f"resp_{match[1]}" if match else None


def input_items(given: str | Sequence[Item], response_id: str) -> list[dict[str, Any]]:
    """The input of a request as the API lists it: every item with its type, identifier and parts.

    Raises InvalidRequest for items of unknown types and those that lack something.
    """
    items = [Item(role="user", content=given)] if isinstance(given, str) else given
    return [_complete(item, response_id, index) for index, item in enumerate(items)]


def _complete(item: Item, response_id: str, index: int) -> dict[str, Any]:
    kind = item.type or "message"
    if kind not in _REQUIRED:
        allowed = ", ".join((*_REQUIRED, "item_reference"))
        raise InvalidRequest(f"Invalid value: {kind!r}. Supported values are: {allowed}.", field=f"input.{index}.type")
    missing = next((name for name in _REQUIRED[kind] if getattr(item, name) is None), None)
    if missing:
        raise InvalidRequest(f"Missing required parameter: '{missing}'.", field=f"input.{index}.{missing}")
    complete: dict[str, Any] = {
        "id": item.id or item_id(kind, response_id, index),
        "type": kind,
        "status": item.status or "completed",
    }
    for name in _REQUIRED[kind]:
        complete[name] = getattr(item, name)
    if kind == "message" and isinstance(item.content, str):
        complete["content"] = [_text_part(item.content, item.role or "")]
    return msgspec.to_builtins(complete)


def _text_part(text: str, role: str) -> dict[str, Any]:
    if role == "assistant":
        return {"type": "output_text", "text": text, "annotations": []}
    return {"type": "input_text", "text": text}


def to_conversation(
    items: Sequence[dict[str, Any]],
    num_earlier: int,
    instructions: str | None,
    tools: Sequence[Tool],
    entry: ModelEntry,
) -> tuple[Message, ...]:
    """The core messages of listed items, of which the first `num_earlier` come from previous responses.

    Raises InvalidRequest for what the model cannot do.
    """
    messages = [Message("system", (TextBlock(instructions),))] if instructions else []
    fields = ["instructions"] * len(messages)
    for index, listed in enumerate(items):
        field = "previous_response_id" if index < num_earlier else f"input.{index - num_earlier}"
        message = _to_message(msgspec.convert(listed, Item), entry, field)
        if messages and message.role == "assistant" == messages[-1].role:
            # What an assistant says and calls, item by item, is one turn.
            messages[-1] = join_turns((messages[-1], message))[0]
        else:
            messages.append(message)
            fields.append(field)
    try:
        check_conversation(messages, tools, entry)
    except InvalidRequest as error:
        turn = re.match(r"messages\.(\d+)", error.field or "")
        field = fields[int(turn[1])] if turn and int(turn[1]) < len(fields) else "input"
        raise InvalidRequest(str(error), field=error.field if error.field == "tools" else field) from None
    return join_turns(messages)


def _to_message(item: Item, entry: ModelEntry, field: str) -> Message:
    if item.type == "function_call":
        call = to_tool_use(item.call_id or "", item.name or "", item.arguments or "", f"{field}.arguments")
        return Message("assistant", (call,))
    if item.type == "function_call_output":
        blocks = _to_blocks(item.output, entry, f"{field}.output")
        parts = tuple(block for block in blocks if isinstance(block, (TextBlock, MediaBlock)))
        return Message("user", (ToolResultBlock(item.call_id or "", parts),))
    role = _ROLES.get(item.role or "")
    if role is None:
        allowed = ", ".join(_ROLES)
        raise InvalidRequest(f"Invalid value {item.role!r}. Supported values are: {allowed}.", field=f"{field}.role")
    return Message(role, tuple(_to_blocks(item.content, entry, f"{field}.content")))


def _to_blocks(content: str | list[ContentPart] | None, entry: ModelEntry, field: str) -> list[ContentBlock]:
    if isinstance(content, str):
        return [TextBlock(content)]
    return [_to_block(part, entry, f"{field}.{index}") for index, part in enumerate(content or ())]


def _to_block(part: ContentPart, entry: ModelEntry, field: str) -> ContentBlock:
    if part.type in ("input_text", "output_text", "text") and part.text is not None:
        return TextBlock(part.text)
    if part.type == "refusal" and part.refusal is not None:
        return TextBlock(part.refusal)
    if part.type == "input_image" and part.image_url is not None:
        return to_image(part.image_url, entry, f"{field}.image_url")
    raise InvalidRequest(f"This model does not take {part.type!r} content of this form.", field=f"{field}.type")
