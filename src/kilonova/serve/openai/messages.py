"""Chat messages and tools of the OpenAI API to and from the core vocabulary."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from kilonova.core.errors import InvalidRequest
from kilonova.core.types import ContentBlock, MediaBlock, Message, Role, TextBlock, Tool, ToolResultBlock, ToolUseBlock
from kilonova.serve.conversation import check_conversation
from kilonova.serve.openai.requests import ChatMessage, ChatRequest, ImagePart, RefusalPart, TextPart, ToolCall

if TYPE_CHECKING:
    from kilonova.models.registry import ModelEntry

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "user",
}
_DATA_URL = re.compile(r"data:image/([a-z+.-]+);base64,(.*)", re.DOTALL)


def to_conversation(request: ChatRequest, entry: ModelEntry) -> tuple[tuple[Message, ...], tuple[Tool, ...]]:
    """The core messages and tools of a chat request; neighbouring turns of one role are joined by a blank line.

    Raises InvalidRequest for what the model cannot do.
    """
    _check_choices(request)
    tools = _to_tools(request)
    messages = [_to_message(message, turn) for turn, message in enumerate(request.messages)]
    try:
        check_conversation(messages, tools, entry)
    except InvalidRequest as error:
        raise _with_wire_field(error, request.messages) from None
    return _join_turns(messages), () if request.tool_choice == "none" else tools


def _check_choices(request: ChatRequest) -> None:
    if request.tool_choice not in (None, "auto", "none"):
        raise InvalidRequest("This model supports the values 'auto' and 'none' of 'tool_choice'.", field="tool_choice")
    if request.response_format is not None and request.response_format.get("type") != "text":
        message = "This model supports the value {'type': 'text'} of 'response_format'."
        raise InvalidRequest(message, field="response_format")
    if request.modalities not in (None, ["text"]):
        raise InvalidRequest("This model supports the value ['text'] of 'modalities'.", field="modalities")


def _to_tools(request: ChatRequest) -> tuple[Tool, ...]:
    tools = []
    for index, tool in enumerate(request.tools or ()):
        if tool.function.strict:
            field = f"tools.{index}.function.strict"
            raise InvalidRequest("Strict functions are not supported with this model.", field=field)
        tools.append(Tool(tool.function.name, tool.function.description or "", tool.function.parameters or {}))
    return tuple(tools)


def _to_message(message: ChatMessage, turn: int) -> Message:
    path = f"messages.{turn}"
    role = _ROLES.get(message.role)
    if role is None:
        allowed = ", ".join(_ROLES)
        raise InvalidRequest(f"Invalid value {message.role!r}. Supported values are: {allowed}.", field=f"{path}.role")
    content = _to_blocks(message, path)
    if message.role == "tool":
        if message.tool_call_id is None:
            raise InvalidRequest("A message of role 'tool' needs its 'tool_call_id'.", field=f"{path}.tool_call_id")
        parts = tuple(block for block in content if isinstance(block, (TextBlock, MediaBlock)))
        return Message(role, (ToolResultBlock(message.tool_call_id, parts),))
    if message.tool_calls:
        if role != "assistant":
            raise InvalidRequest("Only assistant messages hold 'tool_calls'.", field=f"{path}.tool_calls")
        content = [block for block in content if not isinstance(block, TextBlock) or block.text]
        content += [_to_tool_use(call, f"{path}.tool_calls.{index}") for index, call in enumerate(message.tool_calls)]
    return Message(role, tuple(content))


def _to_blocks(message: ChatMessage, path: str) -> list[ContentBlock]:
    if message.content is None:
        return []
    if isinstance(message.content, str):
        return [TextBlock(message.content)]
    blocks: list[ContentBlock] = []
    for index, part in enumerate(message.content):
        if isinstance(part, TextPart):
            blocks.append(TextBlock(part.text))
        elif isinstance(part, RefusalPart):
            blocks.append(TextBlock(part.refusal))
        elif isinstance(part, ImagePart):
            blocks.append(_to_image(part, f"{path}.content.{index}.image_url"))
        else:
            kind = part.__struct_config__.tag
            raise InvalidRequest(f"This model does not take {kind} content.", field=f"{path}.content.{index}.{kind}")
    return blocks


def _to_image(part: ImagePart, path: str) -> MediaBlock:
    url = _DATA_URL.fullmatch(part.image_url.url)
    if url is None:
        raise InvalidRequest("Give the picture as a 'data:image/...;base64,' URL.", field=f"{path}.url")
    try:
        return MediaBlock("image", url[1], base64.b64decode(url[2], validate=True))
    except binascii.Error:
        raise InvalidRequest("The picture's data is not valid base64.", field=f"{path}.url") from None


def _to_tool_use(call: ToolCall, path: str) -> ToolUseBlock:
    try:
        arguments = msgspec.json.decode(call.function.arguments or "{}")
    except (msgspec.DecodeError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        raise InvalidRequest("The arguments must be a JSON object in a string.", field=f"{path}.function.arguments")
    return ToolUseBlock(call.id, call.function.name, arguments)


def _with_wire_field(error: InvalidRequest, messages: Sequence[ChatMessage]) -> InvalidRequest:
    """The same error with its field as this API's messages name it: a text content has no parts to count."""
    field = error.field or ""
    match = re.fullmatch(r"(messages\.(\d+)\.content)\.\d+(?:\..+)?", field)
    if match and not isinstance(messages[int(match[2])].content, list):
        field = match[1]
    elif match and field.endswith(".image"):
        field += "_url"
    return InvalidRequest(str(error), field=field)


def _join_turns(messages: Sequence[Message]) -> tuple[Message, ...]:
    joined: list[Message] = []
    for message in messages:
        if joined and joined[-1].role == message.role:
            before = joined[-1].content
            meet = (*before[-1:], *message.content[:1])
            both_text = len(meet) == 2 and all(isinstance(block, TextBlock) for block in meet)
            between = (TextBlock("\n\n"),) if both_text else ()
            joined[-1] = Message(message.role, (*before, *between, *message.content))
        else:
            joined.append(message)
    return tuple(joined)


def from_tool_use(block: ToolUseBlock) -> dict[str, Any]:
    """A call as `tool_calls` lists it."""
    arguments = msgspec.json.encode(block.input).decode()
    return {"id": block.id, "type": "function", "function": {"name": block.name, "arguments": arguments}}
