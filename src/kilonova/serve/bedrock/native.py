"""The models' own JSON (`messages-v1`), as InvokeModel and InvokeModelWithResponseStream carry it.

It is Converse's vocabulary with `topK` among the inference parameters, cache points as keys of text blocks, and
snake_case spellings beside the camelCase ones, so it is renamed and then checked by Converse's own shapes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kilonova.core.errors import InvalidRequest
from kilonova.core.types import Finished, GenerationRequest
from kilonova.serve.bedrock.messages import check_top_k, extraneous, to_request, unsupported
from kilonova.serve.bedrock.shapes import MalformedBody, OperationShapes, ShapeViolation, decode_object

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
}
_INFERENCE_MEMBERS = {
    "maxTokens": "maxTokens",
    "max_tokens": "maxTokens",
    "max_new_tokens": "maxTokens",
    "maxNewTokens": "maxTokens",
    "temperature": "temperature",
    "topP": "topP",
    "top_p": "topP",
    "topK": "topK",
    "top_k": "topK",
    "stopSequences": "stopSequences",
    "stop_sequences": "stopSequences",
}


def parse_body(body: bytes, converse: OperationShapes, entry: ModelEntry) -> GenerationRequest:
    """The core request of a `messages-v1` body; `converse` are the shapes that check it. Raises InvalidRequest."""
    try:
        value = decode_object(body)
    except MalformedBody as error:
        raise InvalidRequest(f"Malformed input request, please reformat your input and try again. {error}") from None
    version = value.pop("schemaVersion", value.pop("schema_version", SCHEMA_VERSION))
    if version != SCHEMA_VERSION:
        raise InvalidRequest(
            f"The schemaVersion {version!r} is not known. Use {SCHEMA_VERSION!r} and try again.", field="schemaVersion"
        )
    renamed, spelling = _rename(value, _MEMBERS, "")
    config = renamed.get("inferenceConfig")
    top_k = 0
    if isinstance(config, dict):
        if config.get("reasoningConfig") or config.get("reasoning_config"):
            raise unsupported("inferenceConfig.reasoningConfig")
        config, names = _rename(config, _INFERENCE_MEMBERS, "inferenceConfig.")
        spelling.update(names)
        top_k = check_top_k(config.pop("topK", None), names.get("inferenceConfig.topK", "inferenceConfig.topK"))
        renamed["inferenceConfig"] = config
    if "messages" not in renamed:
        raise InvalidRequest(
            "Malformed input request: #: required key [messages] not found, please reformat your input and try again.",
            field="messages",
        )
    _lift_cache_points(renamed)
    try:
        parameters = converse.parse_members(renamed)
        return to_request(parameters, entry, top_k=top_k)
    except ShapeViolation as error:
        raise InvalidRequest(_respell(str(error), spelling), field=_respell(error.field or "", spelling)) from None


def _rename(value: Mapping[str, Any], known: Mapping[str, str], prefix: str) -> tuple[dict[str, Any], dict[str, str]]:
    """The members under their Converse names, and each full name's spelling in the request."""
    renamed: dict[str, Any] = {}
    spelling: dict[str, str] = {}
    for name, item in value.items():
        canonical = known.get(name)
        if canonical is None:
            raise extraneous(prefix + name, name)
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


def _lift_cache_points(value: dict[str, Any]) -> None:
    """Takes the `cachePoint` keys out of text blocks; a block that is nothing else is an error, as in the service."""
    contents = [("system", value.get("system"))]
    if isinstance(value["messages"], list):
        for turn, message in enumerate(value["messages"]):
            if isinstance(message, dict):
                contents.append((f"messages.{turn}.content", message.get("content")))
    for path, blocks in contents:
        for index, block in enumerate(blocks if isinstance(blocks, list) else ()):
            if isinstance(block, dict) and "cachePoint" in block:
                if "text" not in block:
                    raise extraneous(f"{path}.{index}.cachePoint", "cachePoint")
                del block["cachePoint"]


def usage(finished: Finished) -> dict[str, int]:
    """Usage as the model's own JSON names it."""
    return {
        "inputTokens": finished.usage.input_tokens,
        "outputTokens": finished.usage.output_tokens,
        "totalTokens": finished.usage.total_tokens,
        "cacheReadInputTokenCount": 0,
        "cacheWriteInputTokenCount": 0,
    }


def response(content: list[dict[str, Any]], finished: Finished) -> dict[str, Any]:
    """The whole answer as InvokeModel returns it; `content` holds Bedrock content blocks."""
    return {
        "output": {"message": {"content": content, "role": "assistant"}},
        "stopReason": finished.stop_reason,
        "usage": usage(finished),
    }


def invocation_metrics(finished: Finished) -> dict[str, int]:
    """The figures the service adds to the last chunk of a stream; times are in milliseconds."""
    return {
        "inputTokenCount": finished.usage.input_tokens,
        "outputTokenCount": finished.usage.output_tokens,
        "invocationLatency": round(finished.latency * 1000),
        "firstByteLatency": round(finished.time_to_first_token * 1000),
        "cacheReadInputTokenCount": 0,
        "cacheWriteInputTokenCount": 0,
    }
