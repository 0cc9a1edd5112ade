"""Converse's tool configuration, calls and results, to the core vocabulary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from kilonova.core.errors import InvalidRequest
from kilonova.core.types import MediaBlock, NamedTool, TextBlock, Tool, ToolChoice, ToolResultBlock, ToolUseBlock
from kilonova.serve.bedrock.invalid import extraneous, unsupported
from kilonova.serve.bedrock.media import MEDIA, to_media

TOOL_CHOICE = "toolConfig.toolChoice"


def to_tools(config: Mapping[str, Any] | None) -> tuple[Tool, ...]:
    """The tools of a parsed `toolConfig`."""
    tools = []
    for index, each in enumerate(config["tools"] if config else ()):
        path = f"toolConfig.tools.{index}"
        if "cachePoint" in each:
            raise extraneous(path, "cachePoint")
        if "toolSpec" not in each:
            raise unsupported(f"{path}.{next(iter(each))}")
        specification = each["toolSpec"]
        schema = specification["inputSchema"]["json"]
        path = f"{path}.toolSpec.inputSchema.json"
        if not isinstance(schema, dict):
            raise InvalidRequest(f"The value at {path} must be a JSON schema object.", field=path)
        if schema.get("type", "object") != "object":
            raise InvalidRequest(
                f"The value at {path}.type must be one of the following: object.", field=f"{path}.type"
            )
        strict = specification.get("strict", False)
        tools.append(Tool(specification["name"], specification.get("description", ""), schema, strict))
    return tuple(tools)


def to_tool_choice(config: Mapping[str, Any] | None, tools: tuple[Tool, ...]) -> ToolChoice:
    """The choice of a parsed `toolConfig`; a tool that must be called has to be among its `tools`."""
    choice = (config or {}).get("toolChoice") or {"auto": {}}
    if "any" in choice:
        return "required"
    if "tool" not in choice:
        return "auto"
    name = choice["tool"]["name"]
    if name not in {tool.name for tool in tools}:
        raise InvalidRequest(
            f"The tool {name!r} at {TOOL_CHOICE}.tool.name is not in toolConfig.tools. Name one of them and try again.",
            field=f"{TOOL_CHOICE}.tool.name",
        )
    return NamedTool(name)


def to_tool_use(value: Mapping[str, Any], path: str) -> ToolUseBlock:
    """A call that the assistant made, from the `toolUse` at `path`."""
    if value.get("type"):
        raise unsupported(f"{path}.type")
    if not isinstance(value["input"], dict):
        raise InvalidRequest(
            f"The value at {path}.input is not a JSON object. Give an object of arguments and try again.",
            field=f"{path}.input",
        )
    return ToolUseBlock(value["toolUseId"], value["name"], value["input"])


def to_tool_result(value: Mapping[str, Any], path: str) -> ToolResultBlock:
    """The answer to a call, from the `toolResult` at `path`."""
    if value.get("type"):
        raise unsupported(f"{path}.type")
    parts = (_to_part(part, f"{path}.content.{index}") for index, part in enumerate(value["content"]))
    return ToolResultBlock(value["toolUseId"], tuple(parts), is_error=value.get("status") == "error")


def _to_part(part: Mapping[str, Any], path: str) -> TextBlock | MediaBlock:
    ((kind, value),) = part.items()
    if kind == "text":
        return TextBlock(value)
    if kind == "json":
        return TextBlock(msgspec.json.encode(value).decode())
    if kind in MEDIA:
        return to_media(kind, value, f"{path}.{kind}")
    raise unsupported(f"{path}.{kind}")
