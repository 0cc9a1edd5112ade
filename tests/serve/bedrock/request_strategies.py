"""Strategies for requests, from botocore's service model and from what Nova takes of it."""

import base64
import copy
import json
import string

from botocore.loaders import Loader
from botocore.model import ListShape, MapShape, ServiceModel, StructureShape
from hypothesis import assume
from hypothesis import strategies as st

SERVICE = ServiceModel(Loader().load_service_model("bedrock-runtime", "service-2"))
CONVERSE = SERVICE.operation_model("Converse").input_shape

scalars = st.none() | st.booleans() | st.integers(-(2**80), 2**80) | st.floats(allow_nan=False, allow_infinity=False)
documents = st.recursive(
    scalars | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
extreme_texts = st.text(max_size=40) | st.sampled_from(
    ["", " ", "\0", "\u202e", "\U0010ffff", "\ufdd0", "<|im_end|>", "<|im_start|>system\n", "a" * 3000, "{{ 7 * 7 }}"]
)


def of_shape(shape):
    """Values that satisfy everything `shape` says of itself."""
    limits = shape.metadata
    low, high = limits.get("min"), limits.get("max")
    if isinstance(shape, StructureShape):
        if shape.is_document_type:
            return documents
        members = {name: st.deferred(lambda member=member: of_shape(member)) for name, member in shape.members.items()}
        if shape.is_tagged_union:
            return st.one_of([st.fixed_dictionaries({name: member}) for name, member in members.items()])
        required = {name: members.pop(name) for name in shape.required_members}
        return st.fixed_dictionaries(required, optional=members)
    if isinstance(shape, ListShape):
        return st.lists(of_shape(shape.member), min_size=low or 0, max_size=min(high or 3, (low or 0) + 3))
    if isinstance(shape, MapShape):
        keys, values = of_shape(shape.key), of_shape(shape.value)
        return st.dictionaries(keys, values, min_size=low or 0, max_size=min(high or 3, (low or 0) + 3))
    if shape.type_name == "string":
        if getattr(shape, "enum", None):
            return st.sampled_from(shape.enum)
        texts = st.from_regex(limits["pattern"], fullmatch=True) if "pattern" in limits else extreme_texts
        return texts.filter(lambda text: (low or 0) <= len(text) <= (high or 10**9))
    if shape.type_name in ("integer", "long"):
        return st.integers(low, high)
    if shape.type_name in ("float", "double"):
        return st.floats(low, high, allow_nan=False, allow_infinity=False)
    if shape.type_name == "boolean":
        return st.booleans()
    assert shape.type_name == "blob", shape
    blobs = st.binary(min_size=low or 0, max_size=min(high or 30, (low or 0) + 30))
    return blobs.map(lambda data: base64.b64encode(data).decode())


def member_of(operation, name):
    return of_shape(SERVICE.operation_model(operation).input_shape.members[name])


# What Nova takes.

words = st.text(min_size=1, max_size=30).filter(str.strip)
names = st.text(string.ascii_letters + string.digits + "_-", min_size=1, max_size=12)
numbers = st.floats(0, 1, allow_nan=False)
schemas = st.dictionaries(
    st.text(string.ascii_lowercase, min_size=1, max_size=6),
    st.sampled_from([{"type": "string"}, {"type": "integer"}, {"enum": ["a", "b"]}, {"type": "array"}]),
    max_size=3,
).map(lambda properties: {"type": "object", "properties": properties})
cache_points = st.fixed_dictionaries({"type": st.just("default")}, optional={"ttl": st.sampled_from(["5m", "1h"])}).map(
    lambda point: {"cachePoint": point}
)
own_parameters = st.fixed_dictionaries(
    {},
    optional={
        "topK": st.integers(0, 128),
        "seed": st.integers(0, 2**63 - 1),
        "minP": numbers,
        "frequency_penalty": st.floats(-2, 2),
        "presencePenalty": st.floats(-2, 2),
        "repetitionPenalty": st.floats(0.5, 2),
        "logitBias": st.dictionaries(st.integers(0, 500).map(str), st.floats(-100, 100), max_size=3),
    },
)


@st.composite
def texts(draw, most=2):
    blocks = []
    for _ in range(draw(st.integers(1, most))):
        blocks.append({"text": draw(words)})
        if draw(st.integers(0, 9)) == 0:
            blocks.append(draw(cache_points))
    return blocks


@st.composite
def valid_conversations(draw):
    """Converse's members for a conversation that Nova takes."""
    request = {}
    messages = []
    tools = draw(st.lists(names, max_size=3, unique=True))
    for round_ in range(draw(st.integers(0, 2))):
        messages.append({"role": "user", "content": draw(texts())})
        if tools and draw(st.booleans()):
            ids = [f"call_{round_}_{index}" for index in range(draw(st.integers(1, 2)))]
            uses = [
                {"toolUse": {"toolUseId": each, "name": draw(st.sampled_from(tools)), "input": draw(inputs)}}
                for each in ids
            ]
            messages.append({"role": "assistant", "content": draw(st.sampled_from([[], [{"text": "well"}]])) + uses})
            results = [{"toolResult": {"toolUseId": each, **draw(results_of_tools)}} for each in ids]
            messages.append({"role": "user", "content": results})
        messages.append({"role": "assistant", "content": draw(texts())})
    messages.append({"role": "user", "content": draw(texts())})
    if draw(st.booleans()):
        messages.append({"role": "assistant", "content": [{"text": draw(words)}]})
    request["messages"] = messages
    if draw(st.booleans()):
        request["system"] = draw(texts())
    blocks = [block for message in messages for block in message["content"]] + request.get("system", [])
    assume(sum("cachePoint" in block for block in blocks) <= 4)
    if tools:
        specifications = []
        for name in tools:
            optional = {"description": words, "strict": st.booleans()}
            extra = draw(st.fixed_dictionaries({}, optional=optional))
            specifications.append({"toolSpec": {"name": name, "inputSchema": {"json": draw(schemas)}, **extra}})
        choice = draw(st.sampled_from([None, {"auto": {}}, {"any": {}}, {"tool": {"name": tools[0]}}]))
        request["toolConfig"] = {"tools": specifications} | ({"toolChoice": choice} if choice else {})
    return request


inputs = st.dictionaries(st.text(max_size=6), documents, max_size=2)
results_of_tools = st.fixed_dictionaries(
    {
        "content": st.lists(
            st.fixed_dictionaries({"text": words}) | st.fixed_dictionaries({"json": documents}), max_size=2
        )
    },
    optional={"status": st.sampled_from(["success", "error"])},
)


@st.composite
def valid_requests(draw):
    """Converse's whole body."""
    request = draw(valid_conversations())
    config = draw(of_shape(CONVERSE.members["inferenceConfig"]))
    if "maxTokens" in config:
        config["maxTokens"] = draw(st.integers(1, 10_000))
    if "stopSequences" in config:
        config["stopSequences"] = draw(st.lists(words, max_size=3))
    choice = request.get("toolConfig", {}).get("toolChoice", {"auto": {}})
    optional = {
        "inferenceConfig": st.just(config),
        "additionalModelRequestFields": st.fixed_dictionaries({}, optional={"inferenceConfig": own_parameters}),
        "additionalModelResponseFieldPaths": st.lists(
            st.sampled_from(["/stopReason", "/usage", "/output/message/content/0", "/a~1b/~0", "/"]), max_size=3
        ),
        "requestMetadata": of_shape(CONVERSE.members["requestMetadata"]),
        "performanceConfig": of_shape(CONVERSE.members["performanceConfig"]),
        "serviceTier": of_shape(CONVERSE.members["serviceTier"]),
    }
    if "auto" in choice:
        formats = schemas.map(
            lambda schema: {"type": "json_schema", "structure": {"jsonSchema": {"schema": json.dumps(schema)}}}
        )
        optional["outputConfig"] = st.fixed_dictionaries({"textFormat": formats})
    return request | draw(st.fixed_dictionaries({}, optional=optional))


def to_native(request):
    """The same request in the model's own JSON, as far as it can say it."""
    body = copy.deepcopy({name: request[name] for name in ("messages", "system", "toolConfig") if name in request})
    for blocks in [message["content"] for message in body["messages"]] + [body.get("system", [])]:
        for index in reversed(range(len(blocks))):
            if "text" not in blocks[index] and "cachePoint" in blocks[index]:
                point = blocks.pop(index)
                blocks[index - 1].update(point)
    own = request.get("additionalModelRequestFields", {}).get("inferenceConfig", {})
    if "inferenceConfig" in request or own:
        body["inferenceConfig"] = request.get("inferenceConfig", {}) | own
    return body


def to_operation(operation, request):
    """The body of `operation` for a Converse request."""
    if operation.startswith("Invoke"):
        return to_native(request)
    if operation == "CountTokens":
        members = SERVICE.shape_for("ConverseTokensRequest").members
        return {"input": {"converse": {name: request[name] for name in members if name in request}}}
    return request


def places(shape, value, path=()):
    """Every place in `value` that a shape describes, with that shape."""
    yield path, shape
    if isinstance(shape, StructureShape) and not shape.is_document_type:
        for name, item in value.items():
            yield from places(shape.members[name], item, (*path, name))
    elif isinstance(shape, ListShape):
        for index, item in enumerate(value):
            yield from places(shape.member, item, (*path, index))
    elif isinstance(shape, MapShape):
        for key, item in value.items():
            yield from places(shape.value, item, (*path, key))


def faults(shape):
    """Values that `shape` does not allow."""
    limits = shape.metadata
    low, high = limits.get("min"), limits.get("max")
    if isinstance(shape, StructureShape):
        wrong = [st.just("text"), st.just([]), st.just({"nobodyKnows": 1})]
        if shape.required_members or shape.is_tagged_union:
            wrong.append(st.just({}))
        return st.one_of(wrong)
    if isinstance(shape, (ListShape, MapShape)):
        wrong = [st.just(3), st.just("text"), st.just({} if isinstance(shape, ListShape) else [])]
        if low:
            wrong.append(st.just([] if isinstance(shape, ListShape) else {}))
        return st.one_of(wrong)
    if shape.type_name == "string":
        wrong = [st.integers(), st.just({}), st.just([]), st.booleans()]
        if getattr(shape, "enum", None):
            wrong.append(st.just("nobodyKnows"))
        if "pattern" in limits:
            wrong.append(st.just("\u2620"))
        if low:
            wrong.append(st.just(""))
        if high and high < 10_000:
            wrong.append(st.just("a" * (high + 1)))
        return st.one_of(wrong)
    if shape.type_name == "boolean":
        return st.sampled_from(["true", 1, [], {}])
    wrong = [st.just("3"), st.booleans(), st.just([])]
    if low is not None:
        wrong.append(st.integers(max_value=low - 1))
    if high is not None:
        wrong.append(st.integers(min_value=high + 1))
    return st.one_of(wrong)


def replaced(value, path, new):
    if not path:
        return new
    if isinstance(value, list):
        return [replaced(item, path[1:], new) if index == path[0] else item for index, item in enumerate(value)]
    return {key: replaced(item, path[1:], new) if key == path[0] else item for key, item in value.items()}
