"""The client's side: messages of two APIs, kept within a limit."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from kilonova.core.errors import ContextLengthExceeded, InvalidRequest
from kilonova.text.managed_conversation import ManagedConversation
from kilonova.text.summary import marked


def count(messages: list[dict[str, Any]]) -> int:
    return sum(len(str(message).split()) for message in messages)


def converse(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": [{"text": text}]}


def chat(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": text}


CALL = {"id": "c1", "type": "function", "function": {"name": "clock", "arguments": "{}"}}
TOOLS = [
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c1", "content": "noon"},
]


@pytest.mark.parametrize("message", [converse, chat])
@pytest.mark.parametrize("strategy", ["truncate_oldest", "sliding_window", "summarize"])
def test_both_forms_stay_within_the_limit(message, strategy) -> None:
    prompts: list[str] = []

    def summarise(prompt: str) -> str:
        prompts.append(prompt)
        return f"summary {len(prompts)}"

    form = "chat" if message is chat else "converse"
    conversation = ManagedConversation(
        [chat("system", "be brief")] if message is chat else [],
        limit=300,
        count=count,
        form=form,
        strategy=strategy,
        summarise=summarise,
    )
    dropped = 0
    for turn in range(20):
        conversation.add(message("user", f"question {turn} " + "word " * 20))
        sent = conversation.fit()
        assert count(sent) <= 300
        assert sent[-1] == conversation.messages[-1]
        turns = [each for each in sent if each["role"] != "system"]
        assert turns[0]["role"] == "user"
        assert str(sent).count("[Summary of") == (1 if strategy == "summarize" and prompts else 0)
        dropped += conversation.report.dropped_messages
        conversation.add(message("assistant", f"answer {turn}"))
    assert dropped == 40 + (form == "chat") - len(conversation.messages) > 0
    assert ("question 0" in str(conversation.messages)) == (strategy == "sliding_window")
    if strategy == "summarize":
        assert f"summary {len(prompts) - 1}" in prompts[-1]
        assert marked(f"summary {len(prompts)}").strip() in str(conversation.messages).replace("\\n", "\n")
    else:
        assert not prompts
    if form == "chat":
        assert conversation.messages[0] == chat("system", "be brief")


def test_tool_messages_go_together() -> None:
    messages = [chat("user", "time? " + "word " * 30), *TOOLS, chat("assistant", "noon"), chat("user", "thanks")]
    conversation = ManagedConversation(messages, limit=20, count=count, form="chat")
    assert conversation.fit() == messages[-1:]
    assert conversation.report.dropped_messages == 4
    converse_tools = [
        {"role": "assistant", "content": [{"toolUse": {"toolUseId": "a", "name": "clock", "input": {}}}]},
        {"role": "user", "content": [{"toolResult": {"toolUseId": "a", "content": [{"json": {"t": 12}}]}}]},
    ]
    messages = [converse("user", "word " * 30), *converse_tools, converse("assistant", "noon"), converse("user", "hm")]
    assert ManagedConversation(messages, limit=20, count=count).fit() == messages[-1:]


def test_content_parts_keep_their_form() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}
    messages = [
        chat("user", "word " * 200),
        chat("assistant", "ok"),
        {"role": "user", "content": [picture, {"type": "text", "text": "what is it"}]},
    ]
    conversation = ManagedConversation(
        messages, limit=150, count=count, form="chat", strategy="summarize", summarise=lambda prompt: "words"
    )
    (sent,) = conversation.fit()
    assert sent["content"] == [{"type": "text", "text": marked("words")}, *messages[-1]["content"]]
    conversation.add(chat("assistant", "a cat " + "word " * 200), chat("user", "thanks"))
    assert conversation.fit() == [chat("user", marked("words") + "thanks")]


def test_newest_message_alone_is_too_long() -> None:
    conversation = ManagedConversation([converse("user", "word " * 30)], limit=20, count=count)
    with pytest.raises(ContextLengthExceeded):
        conversation.fit()
    assert len(conversation.messages) == 1


def test_summarising_needs_a_model() -> None:
    with pytest.raises(InvalidRequest, match="asks a model"):
        ManagedConversation(limit=20, count=count, strategy="summarize")


def test_clients_need_no_torch() -> None:
    loaded = "sorted({'torch', 'jinja2', 'tokenizers'} & set(sys.modules))"
    code = f"import sys, kilonova.text.managed_conversation; print({loaded})"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
