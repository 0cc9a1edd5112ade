"""Summaries of the oldest part of a conversation: how they are asked for, and how they are carried along.

A summary stands at the beginning of the first user turn, between two marks, rather than in the system prompt: it is
made of what users said, and should weigh no more than that.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace

from kilonova.core.types import CachePointBlock, ContentBlock, MediaBlock, Message, TextBlock, ToolUseBlock

BEGIN_MARK = "[Summary of the conversation so far]\n"
END_MARK = "\n[End of the summary]\n\n"

_NAMES = {"user": "User", "assistant": "Assistant", "system": "System"}
_WISH = "in a few sentences. Keep names, numbers, facts, decisions and open questions. Answer with the summary alone."


def split_summary(text: str) -> tuple[str, str]:
    """The summary that `text` begins with, empty where there is none, and the rest."""
    if not text.startswith(BEGIN_MARK):
        return "", text
    summary, end, rest = text.removeprefix(BEGIN_MARK).partition(END_MARK)
    return (summary, rest) if end else ("", text)


def marked(summary: str) -> str:
    """`summary` between its marks, to be put before the text of a user turn."""
    return BEGIN_MARK + summary.replace(END_MARK.strip(), "").strip() + END_MARK


def take_summary(message: Message) -> tuple[str, Message]:
    """The summary at the beginning of a user turn, empty where there is none, and the turn without it."""
    first = message.content[0] if message.content else None
    if message.role != "user" or not isinstance(first, TextBlock):
        return "", message
    summary, rest = split_summary(first.text)
    if not summary:
        return "", message
    content = (TextBlock(rest), *message.content[1:]) if rest else message.content[1:]
    return summary, replace(message, content=content)


def put_summary(message: Message, summary: str) -> Message:
    """A user turn with `summary` at its beginning, instead of any it had."""
    _, message = take_summary(message)
    return replace(message, content=(TextBlock(marked(summary)), *message.content))


def transcript(messages: Sequence[Message]) -> str:
    """A conversation written down for a reader: a paragraph a turn; system turns are left out."""
    turns = [
        f"{_NAMES[message.role]}: " + "\n".join(_spell(block) for block in message.content if _spell(block))
        for message in messages
        if message.role != "system"
    ]
    return "\n\n".join(turns)


def _spell(block: ContentBlock) -> str:
    if isinstance(block, TextBlock):
        return block.text
    if isinstance(block, ToolUseBlock):
        return f"[calls {block.name} with {json.dumps(dict(block.input), ensure_ascii=False)}]"
    if isinstance(block, MediaBlock):
        return f"[{block.modality} {block.name or ''}".rstrip() + "]"
    if isinstance(block, CachePointBlock):
        return ""
    return "[result: " + " ".join(_spell(part) for part in block.content) + "]"


def summary_prompt(previous: str, text: str) -> str:
    """The user turn that asks for a summary of `text`, or of an earlier summary and what came after it."""
    if not previous:
        return f"Summarise the following conversation {_WISH}\n\n{text}"
    return (
        f"Summarise the following conversation {_WISH} It begins with a summary of what came before.\n\n"
        f"Summary of what came before: {previous}\n\n{text}"
    )


def next_piece(text: str, length: int, fits: Callable[[str], bool]) -> tuple[str, str]:
    """A beginning of `text` that `fits`, of at most `length` characters, and the rest; nothing where none does.

    It ends where a line does if one ends in its second half.
    """
    end = _line_end(text, length)
    while end and not fits(text[:end]):
        end = _line_end(text, end * 3 // 4)
    return text[:end], text[end:].lstrip("\n")


def _line_end(text: str, length: int) -> int:
    if len(text) <= length:
        return len(text)
    end = text.rfind("\n", length // 2, length)
    return length if end < 0 else end
