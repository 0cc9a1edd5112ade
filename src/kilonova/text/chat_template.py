"""Chat templates: a conversation rendered to the text a model was trained on.

Templates are Jinja as stored in Hugging Face checkpoints (`chat_template.jinja`), run in the same sandbox and with the
same functions as `transformers`' `apply_chat_template`, so both render the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2.ext
from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from kilonova.core.errors import CheckpointError, InvalidRequest
from kilonova.core.types import MediaBlock, Message, TextBlock, Tool, ToolResultBlock, ToolUseBlock

CHATML = (Path(__file__).parent / "chatml.jinja").read_text(encoding="utf-8")

# A text that no conversation holds, put where the last assistant turn ends to find it again in the rendering.
_END_OF_PREFILL = "\ufdd1end of prefill\ufdd1"


class ChatTemplate:
    """A compiled chat template; `source` is its Jinja text, `variables` such as `bos_token` are visible to it."""

    def __init__(self, source: str, variables: dict[str, str] | None = None) -> None:
        self.source = source
        self._variables = variables or {}
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols]
        )
        environment.filters["tojson"] = _tojson
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = lambda format: datetime.now().strftime(format)
        try:
            self._template = environment.from_string(source)
        except TemplateError as error:
            raise CheckpointError(f"chat template: {error}") from error

    def render(
        self,
        messages: Sequence[dict[str, Any]],
        tools: Sequence[dict[str, Any]] = (),
        add_generation_prompt: bool = True,
    ) -> str:
        """Render messages given as Hugging Face dictionaries.

        A conversation whose last turn is the assistant's is left open at its end when `add_generation_prompt` is set,
        so that the model continues it.
        """
        prefill = add_generation_prompt and bool(messages) and messages[-1]["role"] == "assistant"
        if prefill:
            last = messages[-1]
            messages = [*messages[:-1], {**last, "content": (last.get("content") or "") + _END_OF_PREFILL}]
        try:
            text = self._template.render(
                messages=list(messages),
                tools=list(tools) or None,
                add_generation_prompt=add_generation_prompt and not prefill,
                **self._variables,
            )
        except TemplateError as error:
            raise InvalidRequest(
                f"the model's chat template refuses the conversation: {error}", field="messages"
            ) from error
        return text.split(_END_OF_PREFILL)[0] if prefill else text


def _tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def to_template_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Core messages as the dictionaries that chat templates expect.

    Tool results become turns of role `tool`, before what else their turn says and in the order of the calls, since
    templates do not spell out which call a result answers.
    """
    rendered: list[dict[str, Any]] = []
    call_order: dict[str, int] = {}
    for message in messages:
        for block in message.content:
            if isinstance(block, MediaBlock):
                raise InvalidRequest(f"{block.modality} content is not accepted by this text model", field="messages")
        results = [block for block in message.content if isinstance(block, ToolResultBlock)]
        for result in sorted(results, key=lambda block: call_order.get(block.tool_use_id, len(call_order))):
            text = "".join(part.text for part in result.content if isinstance(part, TextBlock))
            rendered.append({"role": "tool", "content": text})
        calls = [block for block in message.content if isinstance(block, ToolUseBlock)]
        if message.role == "assistant":
            call_order = {call.id: number for number, call in enumerate(calls)}
        if message.text or calls or not results:
            turn: dict[str, Any] = {"role": message.role, "content": message.text}
            if calls:
                turn["tool_calls"] = [
                    {"type": "function", "function": {"name": call.name, "arguments": dict(call.input)}}
                    for call in calls
                ]
            rendered.append(turn)
    return rendered


def to_template_tools(tools: Sequence[Tool]) -> list[dict[str, Any]]:
    """Core tools as the function dictionaries that chat templates expect."""
    return [
        {
            "type": "function",
            "function": {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)},
        }
        for tool in tools
    ]
