"""Conversations that a client keeps within a context itself, by the strategies that the server has."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from kilonova.core.errors import InvalidRequest
from kilonova.core.types import (
    ContentBlock,
    ContextPolicy,
    ContextStrategy,
    Message,
    Role,
    TextBlock,
    ToolResultBlock,
    ToolUseBlock,
)
from kilonova.text.context import ContextReport, Selection, fit, fit_with, max_summary_tokens
from kilonova.text.summary import marked, split_summary

# Messages as Bedrock's Converse takes them, or as OpenAI's chat completions do.
Form = Literal["converse", "chat"]

_ROLES: dict[str, Role] = {"assistant": "assistant", "system": "system", "developer": "system"}


class ManagedConversation:
    """The messages of one conversation, kept within `limit` tokens of prompt.

    `messages` are dictionaries in the `form` of the API they are sent by. `count` is the number of tokens of a prompt
    of such messages, and `summarise` a model's answer to a prompt, of at most `max_summary_tokens(limit)` tokens;
    without it nothing can be summarised. `report` says what the last `fit` did.
    """

    def __init__(
        self,
        messages: Iterable[dict[str, Any]] = (),
        *,
        limit: int,
        count: Callable[[list[dict[str, Any]]], int],
        form: Form = "converse",
        strategy: ContextStrategy = "truncate_oldest",
        sinks: int | None = None,
        summarise: Callable[[str], str] | None = None,
    ) -> None:
        if strategy == "summarize" and summarise is None:
            raise InvalidRequest("to summarise, a function that asks a model is needed", field="summarise")
        self.messages = list(messages)
        self.report = ContextReport(strategy=strategy)
        self._limit = limit
        self._count = count
        self._form = form
        self._policy = ContextPolicy(strategy=strategy, sinks=sinks)
        self._summarise = summarise

    @classmethod
    def for_bedrock(
        cls,
        client: Any,
        model: str,
        *,
        limit: int,
        strategy: ContextStrategy = "truncate_oldest",
        sinks: int | None = None,
        **parameters: Any,
    ) -> ManagedConversation:
        """One for a boto3 `bedrock-runtime` client, which counts and summarises with `model`.

        `parameters` are what is sent beside the messages and read by the model: `system`, `toolConfig`.
        """

        def count(messages: list[dict[str, Any]]) -> int:
            counted = {"converse": {**parameters, "messages": messages}}
            return client.count_tokens(modelId=model, input=counted)["inputTokens"]

        def summarise(prompt: str) -> str:
            answer = client.converse(
                modelId=model,
                messages=[{"role": "user", "content": [{"text": prompt}]}],
                inferenceConfig={"maxTokens": max_summary_tokens(limit), "temperature": 0},
            )
            return "".join(block.get("text", "") for block in answer["output"]["message"]["content"])

        return cls(limit=limit, count=count, form="converse", strategy=strategy, sinks=sinks, summarise=summarise)

    @classmethod
    def for_openai(
        cls,
        client: Any,
        model: str,
        *,
        limit: int,
        strategy: ContextStrategy = "truncate_oldest",
        sinks: int | None = None,
        **parameters: Any,
    ) -> ManagedConversation:
        """One for an `openai` client of a Kilonova (or vLLM) server, which counts and summarises with `model`.

        `parameters` are what is sent beside the messages and read by the model: `tools`.
        """
        tokenize = str(client.base_url).rstrip("/").removesuffix("/v1") + "/tokenize"

        def count(messages: list[dict[str, Any]]) -> int:
            return client.post(tokenize, cast_to=object, body={**parameters, "model": model, "messages": messages})[
                "count"
            ]

        def summarise(prompt: str) -> str:
            answer = client.chat.completions.create(
                model=model,
                messages=[{"role": "user", "content": prompt}],
                max_completion_tokens=max_summary_tokens(limit),
                temperature=0,
            )
            return answer.choices[0].message.content or ""

        return cls(limit=limit, count=count, form="chat", strategy=strategy, sinks=sinks, summarise=summarise)

    def add(self, *messages: dict[str, Any]) -> None:
        """Appends messages of either side."""
        self.messages += messages

    def fit(self) -> list[dict[str, Any]]:
        """The messages to send, once what does not fit is gone for good.

        Raises ContextLengthExceeded when the newest exchange alone does not fit.
        """
        selection, self.report = fit_with(
            fit(
                [_view(message) for message in self.messages],
                self._policy,
                self._limit,
                lambda selection: self._count(self._kept(selection)),
                count_prompt=lambda prompt: self._count([self._user(prompt)]),
            ),
            self._summarise or _no_summary,
        )
        self.messages = self._kept(selection)
        return list(self.messages)

    def _kept(self, selection: Selection) -> list[dict[str, Any]]:
        kept = [self.messages[index] for index in selection.kept]
        if selection.summary:
            first = next(index for index, message in enumerate(kept) if message["role"] == "user")
            kept[first] = _with_summary(kept[first], selection.summary)
        return kept

    def _user(self, text: str) -> dict[str, Any]:
        return {"role": "user", "content": text if self._form == "chat" else [{"text": text}]}


def _no_summary(prompt: str) -> str:
    return ""


def _with_summary(message: dict[str, Any], summary: str) -> dict[str, Any]:
    content = message["content"]
    if isinstance(content, str):
        return {**message, "content": marked(summary) + split_summary(content)[1]}
    rest = list(content)
    if rest and isinstance(rest[0].get("text"), str):
        remaining = split_summary(rest[0]["text"])[1]
        rest[:1] = [{**rest[0], "text": remaining}] if remaining else []
    kind = {"type": "text"} if any("type" in part for part in content) else {}
    return {**message, "content": [{**kind, "text": marked(summary)}, *rest]}


def _view(message: Mapping[str, Any]) -> Message:
    """What the strategies need to know of a message in either form."""
    role = _ROLES.get(message["role"], "user")
    content = message.get("content")
    parts = [{"text": content}] if isinstance(content, str) else content or []
    if message["role"] == "tool":
        texts = tuple(TextBlock(part["text"]) for part in parts if "text" in part)
        return Message(role, (ToolResultBlock(message["tool_call_id"], texts),))
    blocks: list[ContentBlock] = [_view_part(part) for part in parts]
    for call in message.get("tool_calls") or ():
        function = call["function"]
        blocks.append(ToolUseBlock(call["id"], function["name"], {"arguments": function["arguments"]}))
    return Message(role, tuple(blocks))


def _view_part(part: Mapping[str, Any]) -> ContentBlock:
    if "toolUse" in part:
        return ToolUseBlock(part["toolUse"]["toolUseId"], part["toolUse"]["name"], part["toolUse"]["input"])
    if "toolResult" in part:
        texts = (str(each.get("text", each.get("json", ""))) for each in part["toolResult"]["content"])
        return ToolResultBlock(part["toolResult"]["toolUseId"], tuple(TextBlock(text) for text in texts))
    if isinstance(part.get("text"), str):
        return TextBlock(part["text"])
    kind = part.get("type") or next(iter(part), "")
    return TextBlock("" if kind == "cachePoint" else f"[{kind}]")
