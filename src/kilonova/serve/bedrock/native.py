"""The models' own JSON (`messages-v1`), as InvokeModel and InvokeModelWithResponseStream carry it.

It is Converse's vocabulary with the models' own parameters among the inference parameters, cache points as keys of text
blocks, and snake_case spellings beside the camelCase ones, so it is renamed and then checked by Converse's own shapes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from kilonova.core.errors import InvalidRequest
from kilonova.core.types import Finished, GenerationRequest
from kilonova.serve.bedrock.inference import MODEL_PARAMETERS, ModelFields, parse_grammar, parse_model_parameters
from kilonova.serve.bedrock.invalid import extraneous, unsupported
from kilonova.serve.bedrock.messages import to_request
from kilonova.serve.bedrock.shapes import MalformedBody, Service, ShapeViolation, decode_object
from kilonova.serve.bedrock.usage import native_usage
from kilonova.serve.call import Call
from kilonova.serve.context import parse_policy

if TYPE_CHECKING:
    from kilonova.models.registry import ModelEntry

SCHEMA_VERSION = "messages-v1"

_MEMBERS = {
    "messages": "messages",
    "system": "system",
    "inferenceConfig": "inferenceConfig",
    "inference_config": "inferenceConfig",
    "toolConfig": "toolConfig",
    "tool_config": "toolConfig",
    "guardrailConfig": "guardrailConfig",
    "guardrail_config": "guardrailConfig",
    "grammar": "grammar",
    "contextManagement": "contextManagement",
    "context_management": "contextManagement",
}
_INFERENCE_MEMBERS = {
    "maxTokens": "maxTokens",
    "max_tokens": "maxTokens",
    "max_new_tokens": "maxTokens",
    "maxNewTokens": "maxTokens",
    "temperature": "temperature",
    "topP": "topP",
    "top_p": "topP",
    "stopSequences": "stopSequences",
    "stop_sequences": "stopSequences",
}

# A block's place: the names and indices that lead to it.
_Place = tuple[str | int, ...]


class NativeBodies:
    """Reads `messages-v1` bodies with the shapes of the `bedrock-runtime` service."""

    def __init__(self, service: Service) -> None:
        self._converse = service["Converse"]
        self._check_cache_point: Callable[[Any, str], Any] = service.checker("CachePointBlock")

    def parse(self, body: bytes, entry: ModelEntry) -> GenerationRequest:
        """The core request of a body. Raises InvalidRequest, which names the member as the body spells it."""
        try:
            value = decode_object(body)
        except MalformedBody as error:
            message = f"Malformed input request, please reformat your input and try again. {error}"
            raise InvalidRequest(message) from None
        version = value.pop("schemaVersion", value.pop("schema_version", SCHEMA_VERSION))
        if version != SCHEMA_VERSION:
            raise InvalidRequest(
                f"The schemaVersion is not known. Use {SCHEMA_VERSION!r} and try again.", field="schemaVersion"
            )
        members, spelling = _rename(value, _MEMBERS, "")
        fields = _take_model_fields(members, spelling)
        if "messages" not in members:
            raise InvalidRequest(
                "Malformed input request: #: required key [messages] not found, please reformat your input and try "
                "again.",
                field="messages",
            )
        points = _take_cache_points(members)
        try:
            parameters = self._converse.parse_members(members)
            for place, point in points.items():
                _at(parameters, place)["cachePoint"] = self._check_cache_point(
                    point, ".".join(map(str, (*place, "cachePoint")))
                )
            return to_request(parameters, entry, fields)
        except ShapeViolation as error:
            raise InvalidRequest(_respell(str(error), spelling), field=_respell(error.field or "", spelling)) from None


def _rename(value: Mapping[str, Any], known: Mapping[str, str], prefix: str) -> tuple[dict[str, Any], dict[str, str]]:
    """The members under their Converse names, and each full name's spelling in the request."""
    renamed: dict[str, Any] = {}
    spelling: dict[str, str] = {}
    for name, item in value.items():
        canonical = known.get(name)
        if canonical is None:
            raise extraneous(prefix.rstrip("."), name)
        if canonical in renamed:
            raise InvalidRequest(
                f"{prefix}{canonical} is given twice, also as {prefix}{name}. Keep one.", field=prefix + name
            )
        renamed[canonical] = item
        spelling[prefix + canonical] = prefix + name
    return renamed, spelling


def _respell(text: str, spelling: Mapping[str, str]) -> str:
    for canonical, given in spelling.items():
        text = text.replace(f"'{canonical}'", f"'{given}'") if text != canonical else given
    return text


def _take_model_fields(members: dict[str, Any], spelling: dict[str, str]) -> ModelFields:
    """Takes what is the models' own out of the renamed members, and adds to the spellings."""
    grammar = parse_grammar(members.pop("grammar", None), "grammar")
    context = parse_policy(members.pop("contextManagement", None), spelling.get("contextManagement", ""))
    config = members.get("inferenceConfig")
    sampling: dict[str, Any] = {}
    if isinstance(config, dict):
        path = spelling["inferenceConfig"]
        if config.get("reasoningConfig") or config.get("reasoning_config"):
            raise unsupported(f"{path}.reasoningConfig")
        config.pop("reasoningConfig", None)
        config.pop("reasoning_config", None)
        own = {name: config.pop(name) for name in list(config) if name in MODEL_PARAMETERS}
        sampling = parse_model_parameters(own, path, path)
        members["inferenceConfig"], names = _rename(config, _INFERENCE_MEMBERS, "inferenceConfig.")
        spelling.update(names)
    return ModelFields(sampling=sampling, grammar=grammar, context=context, path="")


def _take_cache_points(value: dict[str, Any]) -> dict[_Place, Any]:
    """Takes the `cachePoint` keys out of text blocks; a block that is nothing else is an error, as in the service."""
    contents: list[tuple[_Place, Any]] = [(("system",), value.get("system"))]
    if isinstance(value["messages"], list):
        for turn, message in enumerate(value["messages"]):
            if isinstance(message, dict):
                contents.append((("messages", turn, "content"), message.get("content")))
    points: dict[_Place, Any] = {}
    for place, blocks in contents:
        for index, block in enumerate(blocks if isinstance(blocks, list) else ()):
            if isinstance(block, dict) and "cachePoint" in block:
                if "text" not in block:
                    raise extraneous(".".join(map(str, (*place, index))), "cachePoint")
                points[*place, index] = block.pop("cachePoint")
    return points


def _at(value: Any, place: _Place) -> Any:
    for part in place:
        value = value[part]
    return value


def response(content: list[dict[str, Any]], finished: Finished, call: Call) -> dict[str, Any]:
    """The whole answer as InvokeModel returns it; `content` holds Bedrock content blocks."""
    return {
        "output": {"message": {"content": content, "role": "assistant"}},
        "stopReason": finished.stop_reason,
        "usage": native_usage(finished.usage),
        **context_management(call),
    }


def context_management(call: Call) -> dict[str, Any]:
    """The member that says what was done to the conversation of a call to make it fit; empty for nothing."""
    return {} if call.context is None else {"contextManagement": _camel_case(call.context)}


def _camel_case(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {re.sub("_(.)", lambda match: match[1].upper(), name): _camel_case(item) for name, item in value.items()}
