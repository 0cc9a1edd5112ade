"""Tools and the choice among them, as chat completions and responses word them, to the core vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from kilonova.core.errors import InvalidRequest
from kilonova.core.types import NamedTool, Tool, ToolChoice

FunctionName = Annotated[str, Meta(pattern="^[a-zA-Z0-9_.-]{1,64}$")]
ChoiceName = Literal["none", "auto", "required"]


class Function(Struct):
    """A function the model may call, with the JSON schema of its arguments.

    Calls always fit it; with `strict`, what of it cannot be enforced is refused.
    """

    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ChatTool(Struct):
    """A tool of a chat request."""

    type: str
    function: Function | None = None


class ResponseTool(Struct):
    """A tool of a response, whose function is not wrapped."""

    type: str
    name: FunctionName | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class FunctionReference(Struct):
    """The name of a function."""

    name: str


class ToolReference(Struct, omit_defaults=True):
    """A function by its name, which chat wraps and responses do not."""

    type: str
    name: str | None = None
    function: FunctionReference | None = None

    @property
    def function_name(self) -> str:
        """The name, wherever it is."""
        return self.function.name if self.function is not None else self.name or ""


class AllowedTools(Struct):
    """Chat's `allowed_tools`."""

    mode: Literal["auto", "required"]
    tools: list[ToolReference]


class ToolChoiceObject(ToolReference, kw_only=True, omit_defaults=True):
    """A choice that is not a word: one function, or the functions that may be called."""

    mode: Literal["auto", "required"] | None = None
    tools: list[ToolReference] | None = None
    allowed_tools: AllowedTools | None = None


def to_tools(tools: Sequence[ChatTool | ResponseTool]) -> tuple[Tool, ...]:
    """The core's tools. Raises InvalidRequest for those that are not functions."""
    return tuple(_to_tool(tool, f"tools.{index}") for index, tool in enumerate(tools))


def _to_tool(tool: ChatTool | ResponseTool, field: str) -> Tool:
    if tool.type != "function":
        raise InvalidRequest(
            f"Invalid value: {tool.type!r}. Tools of the type 'function' are supported.", field=f"{field}.type"
        )
    function = tool.function if isinstance(tool, ChatTool) else tool
    missing = f"{field}.function" if isinstance(tool, ChatTool) else f"{field}.name"
    if function is None or function.name is None:
        raise InvalidRequest(f"Missing required parameter: '{missing}'.", field=missing)
    return Tool(function.name, function.description or "", function.parameters or {}, bool(function.strict))


def choose(
    tools: tuple[Tool, ...], choice: ChoiceName | ToolChoiceObject | None
) -> tuple[tuple[Tool, ...], ToolChoice]:
    """The tools that may be called and the core's choice among them; without a call to make, no tool is shown."""
    if choice is None or choice == "auto":
        return tools, "auto"
    if choice == "none":
        return (), "auto"
    if not tools:
        raise InvalidRequest("'tool_choice' is only allowed when 'tools' are specified.", field="tool_choice")
    if isinstance(choice, str):
        return tools, choice
    known = {tool.name: tool for tool in tools}
    if choice.type == "function":
        return tools, NamedTool(_known_name(choice, known, "tool_choice"))
    if choice.type != "allowed_tools":
        raise InvalidRequest(
            f"Invalid value: {choice.type!r}. Supported values are: 'function' and 'allowed_tools'.",
            field="tool_choice.type",
        )
    mode, allowed = choice.mode, choice.tools
    if choice.allowed_tools is not None:
        mode, allowed = choice.allowed_tools.mode, choice.allowed_tools.tools
    if mode is None or not allowed:
        raise InvalidRequest("'allowed_tools' need a 'mode' and 'tools'.", field="tool_choice")
    names = [_known_name(tool, known, f"tool_choice.tools.{index}") for index, tool in enumerate(allowed)]
    return tuple(tool for tool in tools if tool.name in names), mode


def _known_name(tool: ToolReference, known: dict[str, Tool], field: str) -> str:
    name = tool.function_name
    if tool.type != "function" or name not in known:
        raise InvalidRequest(f"Tool choice {name!r} not found in 'tools' parameter.", field=field)
    return name
