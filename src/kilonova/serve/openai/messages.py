"""Chat messages of the OpenAI API to the core vocabulary."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from kilonova.core.errors import InvalidRequest
from kilonova.core.types import ContentBlock, MediaBlock, Message, Role, TextBlock, Tool, ToolResultBlock, ToolUseBlock
from kilonova.serve.conversation import check_conversation
from kilonova.serve.openai.requests import ChatMessage, ImagePart, RefusalPart, TextPart

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


def to_conversation(messages: Sequence[ChatMessage], tools: Sequence[Tool], entry: ModelEntry) -> tuple[Message, ...]:
    """The core messages of a chat; neighbouring turns of one role are joined by a blank line.

    Raises InvalidRequest for what the model cannot do.
    """
    converted = [_to_message(message, turn, entry) for turn, message in enumerate(messages)]
    try:
        check_conversation(converted, tools, entry)
    except InvalidRequest as error:
        raise _with_wire_field(error, messages) from None
    return join_turns(converted)


def _to_message(message: ChatMessage, turn: int, entry: ModelEntry) -> Message:
    path = f"messages.{turn}"
    role = _ROLES.get(message.role)
    if role is None:
        allowed = ", ".join(_ROLES)
        raise InvalidRequest(f"Invalid value {message.role!r}. Supported values are: {allowed}.", field=f"{path}.role")
    content = _to_blocks(message, path, entry)
    if message.role == "tool":
        if message.tool_call_id is None:
            raise InvalidRequest("A message of role 'tool' needs its 'tool_call_id'.", field=f"{path}.tool_call_id")
        parts = tuple(block for block in content if isinstance(block, (TextBlock, MediaBlock)))
        return Message(role, (ToolResultBlock(message.tool_call_id, parts),))
    if message.refusal and not message.content:
        content = [TextBlock(message.refusal)]
    if message.tool_calls:
        if role != "assistant":
            raise InvalidRequest("Only assistant messages hold 'tool_calls'.", field=f"{path}.tool_calls")
        content = [block for block in content if not isinstance(block, TextBlock) or block.text]
        content += [
            to_tool_use(
                call.id, call.function.name, call.function.arguments, f"{path}.tool_calls.{index}.function.arguments"
            )
            for index, call in enumerate(message.tool_calls)
        ]
    return Message(role, tuple(content))


def _to_blocks(message: ChatMessage, path: str, entry: ModelEntry) -> list[ContentBlock]:
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
            blocks.append(to_image(part.image_url.url, entry, f"{path}.content.{index}.image_url"))
        else:
            kind = part.__struct_config__.tag
            raise InvalidRequest(f"This model does not take {kind} content.", field=f"{path}.content.{index}.{kind}")
    return blocks


def to_image(url: str, entry: ModelEntry, field: str) -> MediaBlock:
    """A picture given as a `data:` URL. Raises InvalidRequest for any other, and where the model takes none."""
    if "image" not in entry.input_modalities:
        raise InvalidRequest("This model does not take pictures.", field=field)
    match = _DATA_URL.fullmatch(url)
    if match is None:
        raise InvalidRequest("Give the picture as a 'data:image/...;base64,' URL.", field=field)
    try:
        return MediaBlock("image", match[1], base64.b64decode(match[2], validate=True))
    except binascii.Error:
        raise InvalidRequest("The picture's data is not valid base64.", field=field) from None


def to_tool_use(call_id: str, name: str, text: str, field: str) -> ToolUseBlock:
    """A call whose arguments are JSON in a string. Raises InvalidRequest where they are no object."""
    try:
        arguments = msgspec.json.decode(text or "{}")
    except (msgspec.DecodeError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        raise InvalidRequest("The arguments must be a JSON object in a string.", field=field)
    return ToolUseBlock(call_id, name, arguments)


def _with_wire_field(error: InvalidRequest, messages: Sequence[ChatMessage]) -> InvalidRequest:
    """The same error with its field as this API's messages name it: a text content has no parts to count."""
    field = error.field or ""
    match = re.fullmatch(r"(messages\.(\d+)\.content)\.\d+(?:\..+)?", field)
    if match and not isinstance(messages[int(match[2])].content, list):
        field = match[1]
    elif match and field.endswith(".image"):
        field += "_url"
    return InvalidRequest(str(error), field=field)


def join_turns(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The same conversation with neighbouring turns of one role made one, a blank line between their texts."""
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
