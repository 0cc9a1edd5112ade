"""How an answer is to be chosen: Converse's inference parameters, its output format, and what the models add to them.

`additionalModelRequestFields` are members of the model's own JSON, so Converse and InvokeModel share them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from kilonova.core.errors import InvalidRequest
from kilonova.core.types import ContextPolicy, Grammar, SamplingParams
from kilonova.serve.bedrock.invalid import constraint, extraneous, unsupported
from kilonova.serve.context import parse_policy
from kilonova.serve.conversation import check_max_tokens, default_max_tokens, nucleus

if TYPE_CHECKING:
    from kilonova.models.registry import ModelEntry

# What the family's models accept whatever their size; an answer ends where the context does.
MAX_TOKENS = 10_000
MAX_TOP_K = 128
MAX_SEED = 2**63 - 1

ADDITIONAL_FIELDS = "additionalModelRequestFields"
OUTPUT_SCHEMA = "outputConfig.textFormat.structure.jsonSchema.schema"

Check = Callable[[Any, str], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFields:
    """What a request says in the model's own JSON alone: parameters of `SamplingParams`, a grammar, and what becomes of
    a conversation that does not fit.

    `path` is what comes before its members' names, `additionalModelRequestFields.` or nothing.
    """

    sampling: Mapping[str, Any] = field(default_factory=dict)
    grammar: Grammar | None = None
    context: ContextPolicy | None = None
    path: str = f"{ADDITIONAL_FIELDS}."


def _integer(low: int, high: int) -> Check:
    def check(value: Any, path: str) -> int:
        if type(value) is not int or not low <= value <= high:
            raise constraint(path, value, f"an integer between {low} and {high}")
        return value

    return check


def _number(low: float, high: float, *, above: bool = False) -> Check:
    rule = f"a number above {low:g} and at most {high:g}" if above else f"a number between {low:g} and {high:g}"

    def check(value: Any, path: str) -> float:
        if type(value) not in (int, float) or not low <= value <= high or (above and value == low):
            raise constraint(path, value, rule)
        return value

    return check


def _logit_bias(value: Any, path: str) -> dict[int, float]:
    if not isinstance(value, dict):
        raise constraint(path, value, "an object of token ids and numbers")
    bias = {}
    for name, number in value.items():
        if not name.isascii() or not name.isdecimal() or len(name) > 9:
            raise constraint(path, name, "an object whose names are token ids")
        bias[int(name)] = _number(-100, 100)(number, f"{path}.{name}")
    return bias


# The models' own inference parameters: the sampling parameter that each is, and what it may be.
_CHECKS: dict[str, tuple[str, Check]] = {
    "topK": ("top_k", _integer(0, MAX_TOP_K)),
    "seed": ("seed", _integer(0, MAX_SEED)),
    "minP": ("min_p", _number(0, 1)),
    "frequencyPenalty": ("frequency_penalty", _number(-2, 2)),
    "presencePenalty": ("presence_penalty", _number(-2, 2)),
    "repetitionPenalty": ("repetition_penalty", _number(0, 10, above=True)),
    "logitBias": ("logit_bias", _logit_bias),
}
_CHECKS_BY_PARAMETER = dict(_CHECKS.values())

# The sampling parameters by both their spellings on the wire.
MODEL_PARAMETERS = {spelling: snake for name, (snake, _) in _CHECKS.items() for spelling in (name, snake)}

_ADDITIONAL_MEMBERS = {
    "grammar": "grammar",
    "contextManagement": "contextManagement",
    "context_management": "contextManagement",
    "inferenceConfig": "inferenceConfig",
    "inference_config": "inferenceConfig",
}


def parse_model_parameters(config: Mapping[str, Any], path: str, native_path: str) -> dict[str, Any]:
    """The sampling parameters that an `inferenceConfig` at `path` adds; raises InvalidRequest for any other member."""
    sampling: dict[str, Any] = {}
    for spelling, value in config.items():
        parameter = MODEL_PARAMETERS.get(spelling)
        if parameter is None:
            raise extraneous(path, spelling, native_path=native_path)
        if parameter in sampling:
            raise InvalidRequest(f"{path}.{spelling} is given twice. Keep one.", field=f"{path}.{spelling}")
        if value is not None:
            sampling[parameter] = _CHECKS_BY_PARAMETER[parameter](value, f"{path}.{spelling}")
    return sampling


def parse_additional_fields(fields: Any) -> ModelFields:
    """Converse's `additionalModelRequestFields`; raises InvalidRequest, which names the member at fault."""
    if fields is None:
        return ModelFields()
    if not isinstance(fields, dict):
        raise constraint(ADDITIONAL_FIELDS, fields, "a JSON object")
    sampling: dict[str, Any] = {}
    grammar = context = None
    seen = set()
    for name, value in fields.items():
        path = f"{ADDITIONAL_FIELDS}.{name}"
        member = _ADDITIONAL_MEMBERS.get(name)
        if member in seen:
            raise InvalidRequest(f"{path} is given twice. Keep one.", field=path)
        seen.add(member)
        if member is None:
            raise extraneous(ADDITIONAL_FIELDS, name, native_path="")
        if member == "grammar":
            grammar = parse_grammar(value, path)
        elif member == "contextManagement":
            context = parse_policy(value, path)
        elif value is not None:
            if not isinstance(value, dict):
                raise constraint(path, value, "a JSON object")
            if value.get("reasoningConfig") or value.get("reasoning_config"):
                raise unsupported(f"{path}.reasoningConfig")
            sampling.update(parse_model_parameters(value, path, "inferenceConfig"))
    return ModelFields(sampling=sampling, grammar=grammar, context=context)


def parse_grammar(value: Any, path: str) -> Grammar | None:
    """The `grammar` member: an object with one of `jsonSchema`, `jsonObject`, `regex`, `choice` and `lark`."""
    if value is None:
        return None
    names = ("jsonSchema", "jsonObject", "regex", "choice", "lark")
    if not isinstance(value, dict) or len(value) != 1 or next(iter(value)) not in names:
        raise constraint(path, value, f"an object with exactly one of [{', '.join(names)}] set")
    ((name, source),) = value.items()
    member = f"{path}.{name}"
    if name == "jsonSchema":
        if not isinstance(source, dict):
            raise constraint(member, source, "a JSON schema object")
        return Grammar("json_schema", source)
    if name == "jsonObject":
        if source != {}:
            raise constraint(member, source, "an empty object")
        return Grammar("json_object")
    if name == "choice":
        if not isinstance(source, list) or not source or not all(isinstance(each, str) and each for each in source):
            raise constraint(member, source, "a list of texts that are not empty")
        return Grammar("choice", tuple(source))
    if not isinstance(source, str) or not source:
        raise constraint(member, source, "a text that is not empty")
    return Grammar("regex" if name == "regex" else "lark", source)


def to_grammar(output_config: Mapping[str, Any] | None, fields: ModelFields) -> Grammar | None:
    """What the text of the answer must match: at most one of Converse's `outputConfig` and the model's own may say."""
    output_config = output_config or {}
    if output_config.get("effort"):
        raise unsupported("outputConfig.effort")
    if "textFormat" not in output_config:
        return fields.grammar
    if fields.grammar is not None:
        raise InvalidRequest(
            f"outputConfig.textFormat and {fields.path}grammar both say what the answer looks like. Keep one.",
            field="outputConfig.textFormat",
        )
    text = output_config["textFormat"]["structure"]["jsonSchema"]["schema"]
    try:
        schema = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidRequest(f"The value at {OUTPUT_SCHEMA} is not JSON: {error}", field=OUTPUT_SCHEMA) from None
    if not isinstance(schema, dict):
        raise constraint(OUTPUT_SCHEMA, text, "the text of a JSON schema object")
    return Grammar("json_schema", schema)


def to_sampling(config: Mapping[str, Any], fields: ModelFields, entry: ModelEntry) -> SamplingParams:
    """The core parameters of Converse's `inferenceConfig` and the model's own."""
    max_tokens = config.get("maxTokens")
    check_max_tokens(max_tokens, max(MAX_TOKENS, entry.max_output_tokens), "inferenceConfig.maxTokens")
    defaults = SamplingParams()
    own = dict(fields.sampling)
    top_p, top_k = nucleus(config.get("topP", defaults.top_p), own.pop("top_k", 0))
    return SamplingParams(
        max_tokens=default_max_tokens(entry) if max_tokens is None else max_tokens,
        temperature=config.get("temperature", defaults.temperature),
        top_p=top_p,
        top_k=top_k,
        stop=tuple(config.get("stopSequences", ())),
        **own,
    )
