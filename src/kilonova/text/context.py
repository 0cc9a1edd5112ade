"""Conversations and prompts that fit a context: which parts stay, and what stands for the others.

What goes, goes in whole exchanges: a user turn and what follows it, up to the next user turn that brings no results of
tools. The newest exchange stays; of a long chain of tool calls in it, calls go together with their results. System
turns always stay. The sliding window that keeps the beginning is StreamingLLM's (arXiv 2309.17453, section 3.1), over
what the model is given to read: all that stays is read anew, in its new place.
"""

from __future__ import annotations

import bisect
import itertools
import json
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from kilonova.core.errors import ContextLengthExceeded
from kilonova.core.types import (
    ContextPolicy,
    ContextStrategy,
    MediaBlock,
    Message,
    TextBlock,
    ToolResultBlock,
    ToolUseBlock,
)
from kilonova.text.summary import next_piece, put_summary, summary_prompt, take_summary, transcript

SINK_EXCHANGES = 1
SINK_TOKENS = 4

# Requests to the model for one summary; of a conversation that would take more, only the newest part is summarised.
MAX_PIECES = 8
_MAX_SUMMARY_TOKENS = 1024
# What the marks around a summary take at most, in any tokenizer worth the name.
_MARK_TOKENS = 40
_MEDIA_SIZE = 2000
_MAX_ESTIMATES = 3


@dataclass(frozen=True, slots=True)
class Selection:
    """The messages of a conversation that stay, by index, and the summary that stands for the others."""

    kept: tuple[int, ...]
    summary: str = ""

    def of(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """The conversation as it is then, its first user turn with the summary."""
        kept = [messages[index] for index in self.kept]
        if self.summary:
            first = next(index for index, message in enumerate(kept) if message.role == "user")
            kept[first] = put_summary(kept[first], self.summary)
        return tuple(kept)


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextReport:
    """What became of a conversation: what was done, and what it took away and added, in messages and prompt tokens.

    `note` says why, where something else was done than what was asked for.
    """

    strategy: ContextStrategy
    dropped_messages: int = 0
    dropped_tokens: int = 0
    summary_tokens: int = 0
    summary: str = ""
    note: str = ""


class SummaryMemory(Protocol):
    """Summaries of beginnings of conversations, given as the groups of messages they are made of."""

    def recall(self, groups: Sequence[Sequence[Message]]) -> tuple[int, str]:
        """How many of the first groups a known summary stands for (0: none is known), and the summary."""
        ...

    def remember(self, groups: Sequence[Sequence[Message]], summary: str) -> None:
        """Know the summary of all of `groups`."""
        ...


# Yields prompts for the model, each of which is to be answered with its text.
Fitting = Generator[str, str, tuple[Selection, ContextReport]]


def max_summary_tokens(limit: int) -> int:
    """The most tokens that a summary takes of a context with `limit` tokens for the conversation."""
    return min(_MAX_SUMMARY_TOKENS, max(16, limit // 8))


def fit(
    messages: Sequence[Message],
    policy: ContextPolicy,
    limit: int,
    count: Callable[[Selection], int],
    *,
    count_prompt: Callable[[str], int] | None = None,
    memory: SummaryMemory | None = None,
) -> Fitting:
    """Chooses what stays, so that it takes at most `limit` tokens.

    `count` is the exact number of tokens of a selection; it is asked for a handful of them. A generator, so that asking
    the model may take any form: it yields each prompt for a summary, of which `count_prompt` is the number of tokens,
    is sent the answer, of at most `max_summary_tokens(limit)`, and returns the selection and the report. Raises
    ContextLengthExceeded when what has to stay is too long.
    """
    sinks = 0
    if policy.strategy == "sliding_window":
        sinks = SINK_EXCHANGES if policy.sinks is None else policy.sinks
    choices = _Choices(messages, droppable(messages, sinks), count)
    if choices.tokens(0) <= limit:
        return choices.selection(0), ContextReport(strategy=policy.strategy)
    if policy.strategy == "none":
        raise _too_long(choices, 0, limit)
    if policy.strategy != "summarize" or count_prompt is None:
        return choices.result(policy.strategy, choices.fewest(limit))
    outcome = yield from _summarised(choices, limit, count, count_prompt, memory)
    if not isinstance(outcome, str):
        return outcome
    return choices.result("truncate_oldest", choices.fewest(limit), note=outcome)


def fit_with(steps: Fitting, answer: Callable[[str], str]) -> tuple[Selection, ContextReport]:
    """Runs `steps` to their end, asking `answer` for the text of each prompt."""
    try:
        prompt = next(steps)
        while True:
            prompt = steps.send(answer(prompt))
    except StopIteration as end:
        return end.value


def fit_prompt(token_ids: Sequence[int], policy: ContextPolicy, limit: int) -> tuple[tuple[int, ...], ContextReport]:
    """The tokens of a raw prompt that stay: the newest, after the first few with a sliding window.

    There is nothing in it to be summarised turn by turn, so it is cut instead. Raises ContextLengthExceeded.
    """
    if len(token_ids) <= limit:
        return tuple(token_ids), ContextReport(strategy=policy.strategy)
    sinks = 0
    if policy.strategy == "sliding_window":
        sinks = SINK_TOKENS if policy.sinks is None else policy.sinks
    if policy.strategy == "none" or limit <= sinks:
        raise ContextLengthExceeded(
            f"the prompt of {len(token_ids)} tokens does not fit the {limit} that the context has for it",
            field="prompt",
        )
    kept = (*token_ids[:sinks], *token_ids[len(token_ids) - limit + sinks :])
    dropped = len(token_ids) - limit
    if policy.strategy == "summarize":
        note = "a prompt without turns is cut, not summarised"
        return kept, ContextReport(strategy="truncate_oldest", dropped_tokens=dropped, note=note)
    return kept, ContextReport(strategy=policy.strategy, dropped_tokens=dropped)


def droppable(messages: Sequence[Message], sinks: int = 0) -> list[tuple[int, ...]]:
    """Groups of messages, by index, that may go, in the order in which they go.

    First the exchanges from the oldest on, but for the first `sinks` and the newest; then, of the newest, the calls of
    tools with their results, but for the last ones.
    """
    exchanges: list[list[int]] = []
    for index, message in enumerate(messages):
        if message.role == "system":
            continue
        if not exchanges or _opens_exchange(message):
            exchanges.append([])
        exchanges[-1].append(index)
    if not exchanges:
        return []
    steps: list[list[int]] = []
    for index in exchanges[-1][1:]:
        if messages[index].role == "assistant":
            steps.append([])
        if steps:
            steps[-1].append(index)
    # A turn that the model is to continue is no step of its own: it goes on from the results before it.
    steps = steps[: -2 if steps and len(steps[-1]) == 1 else -1]
    if len(exchanges) <= sinks:
        steps = []
    return [tuple(group) for group in (*exchanges[sinks:-1], *steps)]


def _opens_exchange(message: Message) -> bool:
    return message.role == "user" and not any(isinstance(block, ToolResultBlock) for block in message.content)


class _Choices:
    """The selections of a conversation without its first 0, 1, 2, ... groups, counted when they are needed."""

    def __init__(
        self, messages: Sequence[Message], groups: list[tuple[int, ...]], count: Callable[[Selection], int]
    ) -> None:
        self.messages = messages
        self.groups = groups
        self.count = count
        self._tokens: dict[int, int] = {}

    def selection(self, dropped: int, summary: str = "") -> Selection:
        gone = set(itertools.chain.from_iterable(self.groups[:dropped]))
        return Selection(tuple(index for index in range(len(self.messages)) if index not in gone), summary)

    def tokens(self, dropped: int) -> int:
        if dropped not in self._tokens:
            self._tokens[dropped] = self.count(self.selection(dropped))
        return self._tokens[dropped]

    def messages_of(self, first: int, last: int) -> list[list[Message]]:
        return [[self.messages[index] for index in group] for group in self.groups[first:last]]

    def fewest(self, limit: int) -> int:
        """The fewest groups without which the conversation takes at most `limit` tokens; it takes more with all.

        Raises ContextLengthExceeded. Where to look is estimated from the lengths of the texts, so that few
        conversations are counted, and most of these are about as long as the limit.
        """
        sizes = [sum(_size(self.messages[index]) for index in group) for group in self.groups]
        gone = [0, *itertools.accumulate(sizes)]
        rate = max(1, self.tokens(0)) / max(1, sum(_size(message) for message in self.messages))
        too_few, enough = 0, len(self.groups) + 1
        for estimates in itertools.count():
            if enough - too_few == 1:
                break
            if estimates < _MAX_ESTIMATES:
                wanted = gone[too_few] + (self.tokens(too_few) - limit) / rate
                guess = bisect.bisect_left(gone, wanted)
            else:
                guess = (too_few + enough) // 2
            guess = min(max(guess, too_few + 1), enough - 1)
            if self.tokens(guess) <= limit:
                enough = guess
            else:
                too_few = guess
        if enough > len(self.groups):
            raise _too_long(self, len(self.groups), limit)
        return enough

    def result(
        self, strategy: ContextStrategy, dropped: int, summary: str = "", note: str = ""
    ) -> tuple[Selection, ContextReport]:
        chosen = self.selection(dropped, summary)
        kept_tokens = self.tokens(dropped)
        report = ContextReport(
            strategy=strategy,
            dropped_messages=len(self.messages) - len(chosen.kept),
            dropped_tokens=self.tokens(0) - kept_tokens,
            summary_tokens=self.count(chosen) - kept_tokens if summary else 0,
            summary=summary,
            note=note,
        )
        return chosen, report


def _too_long(choices: _Choices, dropped: int, limit: int) -> ContextLengthExceeded:
    count = sum(choices.messages[index].role != "system" for index in choices.selection(dropped).kept)
    what = "the conversation" if choices.groups and not dropped else "the newest exchange, with what else must stay,"
    return ContextLengthExceeded(
        f"{what} takes {choices.tokens(dropped)} tokens (turns: {count}, the system prompt and the tools); the context "
        f"has {limit} for it beside the answer",
        field="messages",
    )


def _size(message: Message) -> int:
    """About how much of a prompt a message takes, in characters."""
    size = 16
    for block in message.content:
        for part in block.content if isinstance(block, ToolResultBlock) else (block,):
            if isinstance(part, TextBlock):
                size += len(part.text)
            elif isinstance(part, ToolUseBlock):
                size += len(part.name) + len(json.dumps(dict(part.input)))
            elif isinstance(part, MediaBlock):
                size += _MEDIA_SIZE
    return size


def _summarised(
    choices: _Choices,
    limit: int,
    count: Callable[[Selection], int],
    count_prompt: Callable[[str], int],
    memory: SummaryMemory | None,
) -> Generator[str, str, tuple[Selection, ContextReport] | str]:
    """A selection with a summary, or the reason why there is none."""
    every_group = choices.messages_of(0, len(choices.groups))
    known, summary = memory.recall(every_group) if memory is not None else (0, "")
    if known and count(choices.selection(known, summary)) <= limit:
        return choices.result("summarize", known, summary)
    room = limit - max_summary_tokens(limit) - _MARK_TOKENS
    try:
        # More than must go, so that the next few turns fit beside the same summary.
        dropped = max(known, choices.fewest(room * 3 // 4))
    except ContextLengthExceeded:
        try:
            dropped = max(known, choices.fewest(room))
        except ContextLengthExceeded:
            return "there is no room for a summary"
    opening = next((message for message in choices.messages if message.role == "user"), None)
    earlier, stripped = ("", None) if opening is None else take_summary(opening)
    summary = summary if known else earlier
    gone = [stripped if message is opening else message for group in every_group[known:dropped] for message in group]
    written = yield from _write_summary(
        choices, summary, transcript([each for each in gone if each]), limit, count_prompt
    )
    if isinstance(written, str):
        return written
    summary, is_complete = written
    if count(choices.selection(dropped, summary)) > limit:
        return "the summary does not fit"
    if memory is not None:
        memory.remember(every_group[:dropped], summary)
    note = "" if is_complete else "not all of what was dropped is in the summary"
    return choices.result("summarize", dropped, summary, note)


def _write_summary(
    choices: _Choices, summary: str, text: str, limit: int, count_prompt: Callable[[str], int]
) -> Generator[str, str, tuple[str, bool] | str]:
    """The summary of an earlier one and `text`, and whether all of it could be read; or why there is none."""
    room = limit - max_summary_tokens(limit)
    size = sum(_size(message) for message in choices.messages)
    # What is likely to fit beside the rest of the prompt.
    length = max(1, room * size // choices.tokens(0) * 3 // 4)
    read = text[-length * MAX_PIECES :]
    is_complete = len(read) == len(text)
    for _ in range(MAX_PIECES):
        piece, read = next_piece(read, length, partial(_fits, count_prompt, summary, room))
        if not piece:
            break
        summary = (yield summary_prompt(summary, piece)).strip()
        if not summary:
            return "the model wrote no summary"
    return (summary, is_complete and not read) if summary else "there is no room for a summary"


def _fits(count_prompt: Callable[[str], int], summary: str, room: int, piece: str) -> bool:
    return count_prompt(summary_prompt(summary, piece)) <= room
