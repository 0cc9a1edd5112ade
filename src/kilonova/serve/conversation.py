"""Rules every protocol's conversations obey; fields are named in dotted form, with turns counted as on the wire."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kilonova.core.errors import InvalidRequest
from kilonova.core.types import MediaBlock, Message, TextBlock, Tool, ToolResultBlock, ToolUseBlock

if TYPE_CHECKING:
    from kilonova.models.registry import ModelEntry


def check_conversation(messages: Sequence[Message], tools: Sequence[Tool], entry: ModelEntry) -> None:
    """Raises InvalidRequest unless `entry` can take this conversation.

    There must be a turn; user and system turns hold text that is not blank; media are of the kinds the model takes;
    every tool result answers a call of the assistant turn before it, and every call is answered before the next
    assistant turn; no two tools share a name.
    """
    if not messages:
        raise InvalidRequest("The messages field is empty. Add at least one message and try again.", field="messages")
    for turn, message in enumerate(messages):
        _check_content(message, f"messages.{turn}", entry)
    _check_tool_results(messages)
    seen: set[str] = set()
    for tool in tools:
        if tool.name in seen:
            raise InvalidRequest(f"The tools have the name {tool.name!r} twice. Give each its own.", field="tools")
        seen.add(tool.name)


def check_max_tokens(max_tokens: int | None, limit: int, field: str) -> None:
    """Raises InvalidRequest when `max_tokens` is more than the model may be asked for."""
    if max_tokens is not None and max_tokens > limit:
        raise InvalidRequest(
            f"The maximum tokens you requested exceeds the model limit of {limit}. "
            f"Try again with a maximum tokens value that is at most {limit}.",
            field=field,
        )


def default_max_tokens(entry: ModelEntry) -> int | None:
    """What an absent `max_tokens` means: the model's own bound, or None where the context is the only one."""
    return entry.max_output_tokens if entry.max_output_tokens < entry.context_length else None


def nucleus(top_p: float, top_k: int) -> tuple[float, int]:
    """`top_p` and `top_k` for the engine, whose `top_p` is above 0; protocols allow 0: the likeliest token alone."""
    return (top_p, top_k) if top_p > 0 else (1.0, 1)


def check_text_is_not_blank(text: str, block: str) -> None:
    """Raises InvalidRequest when the text of the content block at the path `block` is blank."""
    if not text.strip():
        raise InvalidRequest(
            f"The text field in the ContentBlock object at {block} is blank. "
            "Add text to the text field, and try again.",
            field=f"{block}.text",
        )


def _check_content(message: Message, path: str, entry: ModelEntry) -> None:
    if not message.content and message.role != "assistant":
        raise InvalidRequest(
            f"The content field in the Message object at {path} is empty. "
            "Add a ContentBlock object to the content field and try again.",
            field=f"{path}.content",
        )
    for index, block in enumerate(message.content):
        block_path = f"{path}.content.{index}"
        if isinstance(block, TextBlock) and message.role != "assistant":
            check_text_is_not_blank(block.text, block_path)
        elif isinstance(block, MediaBlock):
            _check_media(block, block_path, entry)
        elif isinstance(block, ToolResultBlock):
            for part_index, part in enumerate(block.content):
                if isinstance(part, MediaBlock):
                    _check_media(part, f"{block_path}.toolResult.content.{part_index}", entry)


def _check_media(block: MediaBlock, path: str, entry: ModelEntry) -> None:
    if block.modality not in entry.input_modalities:
        field = f"{path}.{block.modality}"
        raise InvalidRequest(
            f"This model doesn't support the {field} field. Remove {field} and try again.",
            field=field,
        )


def _check_tool_results(messages: Sequence[Message]) -> None:
    unanswered: dict[str, None] = {}
    for turn, message in enumerate(messages):
        if message.role == "assistant":
            _check_all_answered(unanswered, turn)
            unanswered = {block.id: None for block in message.content if isinstance(block, ToolUseBlock)}
        for index, block in enumerate(message.content):
            if isinstance(block, ToolResultBlock):
                if block.tool_use_id not in unanswered:
                    raise InvalidRequest(
                        f"The tool result at messages.{turn}.content.{index} answers {block.tool_use_id!r}, which is "
                        "not an unanswered call of the assistant turn before it.",
                        field=f"messages.{turn}.content.{index}",
                    )
                del unanswered[block.tool_use_id]
    _check_all_answered(unanswered, len(messages))


def _check_all_answered(unanswered: dict[str, None], turn: int) -> None:
    if unanswered:
        raise InvalidRequest(
            f"Expected tool results at messages.{turn} for the following Ids: {', '.join(unanswered)}",
            field=f"messages.{turn}.content",
        )
