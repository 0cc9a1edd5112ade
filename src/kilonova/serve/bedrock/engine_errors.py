"""What the engine finds wrong with a request, under the names that the request has for it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from kilonova.core.errors import InvalidRequest
from kilonova.serve.bedrock.inference import MODEL_PARAMETERS, OUTPUT_SCHEMA
from kilonova.serve.bedrock.tools import TOOL_CHOICE

_CONVERSE_NAMES = {
    "max_tokens": "inferenceConfig.maxTokens",
    "temperature": "inferenceConfig.temperature",
    "top_p": "inferenceConfig.topP",
    "stop": "inferenceConfig.stopSequences",
    "tools": "toolConfig.tools",
    "tool_choice": TOOL_CHOICE,
}
_OWN_NAMES = {parameter: name for name, parameter in MODEL_PARAMETERS.items() if name not in MODEL_PARAMETERS.values()}
_TOOL = re.compile(r"tools\.(\d+)\.(name|parameters)")
_TOOL_MEMBERS = {"name": "name", "parameters": "inputSchema.json"}


@contextlib.contextmanager
def named_as_sent(own_path: str, *, has_output_format: bool = False) -> Iterator[None]:
    """Gives InvalidRequest the names of Converse; what the models' own JSON adds stands at `own_path`."""
    try:
        yield
    except InvalidRequest as error:
        name = _name(error.field or "", own_path, has_output_format)
        if not name:
            raise
        text = str(error)
        if text.startswith(f"{error.field} "):
            text = name + text.removeprefix(error.field or "")
        raise type(error)(text, field=name) from error


def _name(field: str, own_path: str, has_output_format: bool) -> str:
    tool = _TOOL.fullmatch(field)
    if tool is not None:
        return f"toolConfig.tools.{tool[1]}.toolSpec.{_TOOL_MEMBERS[tool[2]]}"
    if field == "grammar":
        return OUTPUT_SCHEMA if has_output_format else f"{own_path}grammar"
    head, _, rest = field.partition(".")
    if head in _OWN_NAMES:
        name = f"{own_path}inferenceConfig.{_OWN_NAMES[head]}"
    elif head in _CONVERSE_NAMES:
        name = _CONVERSE_NAMES[head]
    else:
        return ""
    return f"{name}.{rest}" if rest else name
