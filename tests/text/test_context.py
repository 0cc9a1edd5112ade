"""What is kept of conversations that do not fit, for any conversation, any limit and every strategy."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kilonova.core.errors import ContextLengthExceeded
from kilonova.core.types import ContextPolicy, Message, TextBlock, ToolResultBlock, ToolUseBlock
from kilonova.text.context import (
    MAX_PIECES,
    ContextReport,
    Selection,
    droppable,
    fit,
    fit_prompt,
    fit_with,
    max_summary_tokens,
)
from kilonova.text.summary import marked, put_summary, split_summary, take_summary, transcript


def system(text: str) -> Message:
    return Message("system", (TextBlock(text),))


def user(text: str) -> Message:
    return Message("user", (TextBlock(text),))


def assistant(text: str) -> Message:
    return Message("assistant", (TextBlock(text),))


def calls(*ids: str) -> Message:
    return Message("assistant", tuple(ToolUseBlock(each, "clock", {"zone": "UTC"}) for each in ids))


def results(*ids: str, text: str = "") -> Message:
    blocks = tuple(ToolResultBlock(each, (TextBlock("noon"),)) for each in ids)
    return Message("user", (*blocks, TextBlock(text)) if text else blocks)


def count_words(messages: Sequence[Message]) -> int:
    """A tokenizer of words, with three tokens around each turn and ten before the answer."""
    return 10 + sum(3 + len(transcript([message]).split()) for message in messages)


class Counter:
    """Counts selections of a conversation, and how often and how much it was asked to."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self.messages = messages
        self.counted: list[int] = []

    def __call__(self, selection: Selection) -> int:
        tokens = count_words(selection.of(self.messages))
        self.counted.append(tokens)
        return tokens


def fitted(
    messages: Sequence[Message],
    limit: int,
    strategy: str,
    *,
    sinks: int | None = None,
    answer: Callable[[str], str] = lambda prompt: "they talked",
    memory: object = None,
) -> tuple[tuple[Message, ...], ContextReport]:
    policy = ContextPolicy(strategy=strategy, sinks=sinks)
    steps = fit(
        messages,
        policy,
        limit,
        Counter(messages),
        count_prompt=lambda prompt: count_words([user(prompt)]),
        memory=memory,
    )
    selection, report = fit_with(steps, answer)
    return selection.of(messages), report


WORDS = st.integers(1, 30).map(lambda n: " ".join(["word"] * n))


@st.composite
def exchanges(draw, number: int) -> list[Message]:
    turns = [user(f"question-{number} " + draw(WORDS))]
    for step in range(draw(st.integers(0, 4))):
        ids = [f"call-{number}-{step}-{each}" for each in range(draw(st.integers(1, 3)))]
        turns += [calls(*ids), results(*ids, text=draw(st.sampled_from(["", "and more"])))]
    return [*turns, assistant(f"answer-{number} " + draw(WORDS))]


@st.composite
def conversations(draw) -> list[Message]:
    messages = [system("be brief")] if draw(st.booleans()) else []
    count = draw(st.integers(1, 8))
    for number in range(count):
        messages += draw(exchanges(number))
        if draw(st.integers(0, 9)) == 0:
            messages.append(system(f"from now on {number}"))
    ending = draw(st.sampled_from(["answer", "prefill", "results"]))
    if ending == "results":
        messages += [user("last"), calls("z"), results("z")]
    elif ending == "answer":
        messages.append(user("last " + draw(WORDS)))
    return messages


def check_kept(messages: Sequence[Message], kept: Sequence[Message]) -> None:
    """What every strategy promises, whatever it dropped."""
    plain = [take_summary(message)[1] for message in kept]
    remaining = iter(messages)
    assert all(any(message == each for each in remaining) for message in plain), "not a subsequence"
    assert [m for m in kept if m.role == "system"] == [m for m in messages if m.role == "system"]
    assert next(m for m in kept if m.role != "system").role == "user"
    turns = [m.role for m in kept if m.role != "system"]
    assert all(a != b for a, b in itertools.pairwise(turns)), "turns do not alternate"
    open_calls: set[str] = set()
    for message in kept:
        for block in message.content:
            if isinstance(block, ToolUseBlock):
                open_calls.add(block.id)
            elif isinstance(block, ToolResultBlock):
                assert block.tool_use_id in open_calls
                open_calls.remove(block.tool_use_id)
    assert open_calls == {block.id for block in messages[-1].content if isinstance(block, ToolUseBlock)}, (
        "a call without its result"
    )
    assert plain[-1] == messages[-1]


@given(conversations(), st.integers(20, 600), st.sampled_from(["truncate_oldest", "sliding_window", "summarize"]))
def test_what_every_strategy_promises(messages: list[Message], limit: int, strategy: str) -> None:
    try:
        kept, report = fitted(messages, limit, strategy)
    except ContextLengthExceeded:
        sinks = 1 if strategy == "sliding_window" else 0
        gone = {index for group in droppable(messages, sinks) for index in group}
        assert count_words([m for i, m in enumerate(messages) if i not in gone]) > limit
        return
    check_kept(messages, kept)
    assert count_words(kept) <= limit
    assert report.dropped_messages == len(messages) - len(kept)
    assert count_words(messages) - report.dropped_tokens + report.summary_tokens == count_words(kept)
    assert bool(report.summary) == (report.summary_tokens > 0)
    assert (count_words(messages) <= limit) == (report.dropped_messages == 0)
    again, second = fitted(kept, limit, strategy)
    assert again == kept
    assert second.dropped_messages == 0


@given(conversations(), st.integers(20, 600), st.integers(0, 3))
def test_nothing_is_dropped_that_could_stay(messages: list[Message], limit: int, sinks: int) -> None:
    try:
        kept, report = fitted(messages, limit, "sliding_window", sinks=sinks)
    except ContextLengthExceeded:
        return
    dropped = next(k for k in range(99) if len(messages) - len(kept) == sum(map(len, droppable(messages, sinks)[:k])))
    if dropped:
        gone = {index for group in droppable(messages, sinks)[: dropped - 1] for index in group}
        assert count_words([m for i, m in enumerate(messages) if i not in gone]) > limit
    assert report.strategy == "sliding_window"


CONVERSATION = [
    system("be brief"),
    *(turn for n in range(10) for turn in (user(f"question {n} " + "word " * 10), assistant(f"answer {n}"))),
    user("and now?"),
]


def test_oldest_exchanges_go_first() -> None:
    kept, report = fitted(CONVERSATION, 80, "truncate_oldest")
    assert kept[0] == CONVERSATION[0]
    assert kept[1:] == tuple(CONVERSATION[-len(kept) + 1 :])
    assert kept[1].role == "user"
    assert report.strategy == "truncate_oldest"
    assert report.dropped_messages == len(CONVERSATION) - len(kept) > 0


def test_sliding_window_keeps_the_beginning() -> None:
    kept, _ = fitted(CONVERSATION, 130, "sliding_window", sinks=2)
    assert list(kept[:5]) == CONVERSATION[:5]
    assert list(kept[5:]) == CONVERSATION[-len(kept) + 5 :]
    assert fitted(CONVERSATION, 80, "sliding_window", sinks=0)[0] == fitted(CONVERSATION, 80, "truncate_oldest")[0]


def test_sinks_that_leave_no_room_are_an_error() -> None:
    with pytest.raises(ContextLengthExceeded, match="what else must stay"):
        fitted(CONVERSATION, 130, "sliding_window", sinks=8)


def test_without_a_strategy_it_is_an_error() -> None:
    with pytest.raises(ContextLengthExceeded, match="the conversation takes"):
        fitted(CONVERSATION, 130, "none")
    assert fitted(CONVERSATION, 1000, "none")[0] == tuple(CONVERSATION)


def test_newest_exchange_alone_is_too_long() -> None:
    with pytest.raises(ContextLengthExceeded, match=r"the newest exchange.* takes 37 tokens \(turns: 1,") as caught:
        fitted([*CONVERSATION, assistant("yes"), user("word " * 20)], 30, "truncate_oldest")
    assert caught.value.field == "messages"


def test_old_steps_of_a_long_chain_of_tool_calls_go() -> None:
    chain = [turn for n in range(6) for turn in (calls(f"{n}a", f"{n}b"), results(f"{n}a", f"{n}b"))]
    messages = [user("old"), assistant("older"), user("look it up"), *chain]
    kept, _ = fitted(messages, 60, "truncate_oldest")
    assert kept[0].text == "look it up"
    assert list(kept[1:]) == chain[-len(kept) + 1 :]
    assert len(kept) < len(chain)
    prefilled, _ = fitted([*messages, assistant("So")], 60, "truncate_oldest")
    assert prefilled[-3:] == (chain[-2], chain[-1], assistant("So"))


@pytest.mark.parametrize("turns", [10, 1000])
def test_few_conversations_are_counted(turns: int) -> None:
    messages = [turn for n in range(turns) for turn in (user("w " * (n % 37)), assistant("w " * (n * 7 % 101)))]
    messages.append(user("last"))
    counter = Counter(messages)
    limit = 200
    fit_with(fit(messages, ContextPolicy(strategy="truncate_oldest"), limit, counter), lambda prompt: "")
    assert len(counter.counted) <= 3 + 3 + turns.bit_length()
    # The whole once, then what is about as long as the limit.
    assert sum(sorted(counter.counted)[:-1]) < 12 * limit + counter.counted[0] // 2


def test_summary_stands_for_the_oldest_exchanges() -> None:
    prompts: list[str] = []

    def answer(prompt: str) -> str:
        prompts.append(prompt)
        return " They counted to three. \n"

    kept, report = fitted(CONVERSATION, 200, "summarize", answer=answer)
    assert kept[0] == CONVERSATION[0]
    assert kept[1].text.startswith(marked("They counted to three."))
    assert take_summary(kept[1])[1] == CONVERSATION[-len(kept) + 1]
    assert report.summary == "They counted to three."
    dropped = CONVERSATION[1 : 1 + report.dropped_messages]
    assert all(message.text in "".join(prompts) for message in dropped)
    assert kept[2].text not in "".join(prompts)
    # Some more than had to go, so that the next turns need no new summary.
    assert report.dropped_messages > fitted(CONVERSATION, 200, "truncate_oldest")[1].dropped_messages


def test_an_earlier_summary_is_extended() -> None:
    earlier = [CONVERSATION[0], put_summary(CONVERSATION[1], "Ada said hello."), *CONVERSATION[2:]]
    prompts: list[str] = []

    def answer(prompt: str) -> str:
        prompts.append(prompt)
        return f"summary {len(prompts)}"

    kept, report = fitted(earlier, 200, "summarize", answer=answer)
    assert "Summary of what came before: Ada said hello." in prompts[0]
    assert all(prompt.count("Ada said hello.") == 1 for prompt in prompts[:1])
    assert "[Summary" not in "".join(prompts)
    for number, prompt in enumerate(prompts[1:], 1):
        assert f"Summary of what came before: summary {number}" in prompt
    assert sum(message.text.count("[Summary") for message in kept) == 1
    assert report.summary == f"summary {len(prompts)}"


class Memory:
    def __init__(self) -> None:
        self.known: dict[str, str] = {}

    def recall(self, groups):
        found = [k for k in range(1, len(groups) + 1) if repr(groups[:k]) in self.known]
        return (found[-1], self.known[repr(groups[: found[-1]])]) if found else (0, "")

    def remember(self, groups, summary):
        self.known[repr(groups)] = summary


def test_a_known_summary_is_used_again_and_rolls_on() -> None:
    memory = Memory()
    prompts: list[str] = []

    def answer(prompt: str) -> str:
        prompts.append(prompt)
        return f"summary {len(prompts)}"

    messages = list(CONVERSATION)
    asked = []
    for turn in range(12):
        before = len(prompts)
        kept, report = fitted(messages, 200, "summarize", answer=answer, memory=memory)
        check_kept(messages, kept)
        asked.append(len(prompts) - before)
        assert report.summary == f"summary {len(prompts)}"
        messages += [assistant(f"reply {turn}"), user("more words in this turn")]
    assert asked[0] >= 1
    assert asked[1] == 0
    assert 1 <= sum(asked[1:]) < 6
    assert "Summary of what came before: summary" in prompts[-1]
    assert "question 0" not in prompts[-1]


def test_summary_that_does_not_fit_is_left_out() -> None:
    kept, report = fitted(CONVERSATION, 200, "summarize", answer=lambda prompt: "long " * 500)
    assert (kept, report.dropped_tokens) == (
        fitted(CONVERSATION, 200, "truncate_oldest")[0],
        fitted(CONVERSATION, 200, "truncate_oldest")[1].dropped_tokens,
    )
    assert report.strategy == "truncate_oldest"
    assert report.note == "the summary does not fit"
    assert fitted(CONVERSATION, 200, "summarize", answer=lambda prompt: " ")[1].note == "the model wrote no summary"


def test_too_much_for_one_summary() -> None:
    messages = [user("first"), assistant("x"), user("word " * 30_000), assistant("the end of it"), user("now")]
    prompts: list[str] = []

    def answer(prompt: str) -> str:
        prompts.append(prompt)
        return "much"

    _, report = fitted(messages, 300, "summarize", answer=answer)
    assert 1 < len(prompts) <= MAX_PIECES
    assert all(count_words([user(prompt)]) + max_summary_tokens(300) <= 300 for prompt in prompts)
    assert "the end of it" in prompts[-1]
    assert report.note == "not all of what was dropped is in the summary"


def test_marks_of_a_summary() -> None:
    assert split_summary(marked("a\nb") + "rest") == ("a\nb", "rest")
    assert split_summary("rest") == ("", "rest")
    assert split_summary("[Summary of the conversation so far]\nno end") == (
        "",
        "[Summary of the conversation so far]\nno end",
    )
    assert take_summary(put_summary(put_summary(user("hi"), "one"), "two")) == ("two", user("hi"))
    nested = marked("[End of the summary]")
    assert split_summary(nested + "x")[1] == "x"


def test_raw_prompts_are_cut() -> None:
    tokens = tuple(range(100))
    kept, report = fit_prompt(tokens, ContextPolicy(strategy="truncate_oldest"), 30)
    assert kept == tokens[70:]
    assert report == ContextReport(strategy="truncate_oldest", dropped_tokens=70)
    kept, _ = fit_prompt(tokens, ContextPolicy(strategy="sliding_window"), 30)
    assert kept == (0, 1, 2, 3, *tokens[74:])
    kept, report = fit_prompt(tokens, ContextPolicy(strategy="summarize"), 30)
    assert kept == tokens[70:]
    assert report.note
    assert fit_prompt(tokens, ContextPolicy(strategy="sliding_window"), 100)[0] == tokens
    for policy in (ContextPolicy(), ContextPolicy(strategy="sliding_window", sinks=30)):
        with pytest.raises(ContextLengthExceeded):
            fit_prompt(tokens, policy, 30)
