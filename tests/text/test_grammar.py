import json
import random
import re
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from tests.text.schemas import LEAVES, SCHEMAS, objects

from kilonova.core.errors import InvalidRequest
from kilonova.core.types import Grammar, NamedTool, Tool
from kilonova.text.grammar import Constraints, GrammarCompiler
from kilonova.text.schema import largest_repeat
from kilonova.text.tokenizer import Tokenizer
from kilonova.text.tool_calls import CallStart, ToolCall, ToolCallReader

VOCAB = 520  # More logits than tokens, as padded checkpoints have them.
WEATHER = Tool(
    "get_weather",
    "d",
    {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}, "required": ["city"]},
)
CLOCK = Tool("clock", "d", {"type": "object", "properties": {}})
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris", "days": 3}}\n</tool_call>'
TIME = '<tool_call>\n{"name": "clock", "arguments": {}}\n</tool_call>'


@pytest.fixture(scope="module")
def tokenizer(tiny_tokenizer_directory):
    return Tokenizer.from_directory(tiny_tokenizer_directory)


@pytest.fixture(scope="module")
def compiler(tokenizer):
    return GrammarCompiler(tokenizer, VOCAB)


def allowed(matcher):
    mask = np.zeros((VOCAB + 31) // 32, dtype=np.int32)
    matcher.unsafe_compute_mask_ptr(mask.ctypes.data, mask.nbytes)
    assert not matcher.is_error(), matcher.get_error()
    return np.unpackbits(mask.view(np.uint8), count=VOCAB, bitorder="little").view(bool)


def accepts(compiler, tokenizer, constraints, text, spell=False):
    """Whether the grammar matches the whole text, spelled byte by byte or as the tokenizer does."""
    matcher = compiler.compile(constraints).matcher()
    if spell:
        token_ids = [token for character in text for token in tokenizer.encode(character)]
    else:
        token_ids = tokenizer.encode(text, allow_special=True)
    if matcher.try_consume_tokens(token_ids) < len(token_ids):
        return False
    return bool(allowed(matcher)[tokenizer.eos_token_id])


def walk(compiler, tokenizer, constraints, seed, most=600):
    """A random text of the grammar, as an untrained model at a high temperature would write it; None if too long."""
    matcher = compiler.compile(constraints).matcher()
    generator = random.Random(seed)
    token_ids = []
    while len(token_ids) < most:
        token = int(generator.choice(np.flatnonzero(allowed(matcher))))
        if token in tokenizer.stop_token_ids:
            return tokenizer.decode(token_ids, skip_special_tokens=False)
        token_ids.append(token)
        assert matcher.consume_token(token)
    return None


def schema_of(schema):
    return Constraints(grammar=Grammar("json_schema", schema))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(schema=SCHEMAS, seed=st.integers(0, 2**32))
def test_whatever_is_drawn_fits_the_schema(compiler, tokenizer, schema, seed):
    Draft202012Validator.check_schema(schema)
    text = walk(compiler, tokenizer, schema_of(schema), seed)
    if text is None:  # Long, not wrong.
        return
    value = json.loads(text)
    Draft202012Validator(schema).validate(value)
    assert text == json.dumps(value, ensure_ascii=False) or "\\" in text or "\x7f" in text


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(parameters=st.lists(objects(LEAVES), min_size=1, max_size=3), seed=st.integers(0, 2**32), parallel=st.booleans())
def test_whatever_is_called_fits_its_schema(compiler, tokenizer, parameters, seed, parallel):
    tools = tuple(Tool(f"tool_{number}", "d", schema) for number, schema in enumerate(parameters))
    text = walk(compiler, tokenizer, Constraints(tools, "required", parallel), seed)
    if text is None:
        return
    pieces = ToolCallReader().push(text)
    calls = [piece for piece in pieces if isinstance(piece, ToolCall)]
    assert not any(isinstance(piece, str) for piece in pieces)
    assert len(calls) == sum(isinstance(piece, CallStart) for piece in pieces)
    assert calls
    assert parallel or len(calls) == 1
    for call in calls:
        Draft202012Validator(parameters[int(call.name.removeprefix("tool_"))]).validate(call.arguments)


TREE = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "value": {"enum": [1, 2]},
                "children": {"type": "array", "items": {"$ref": "#/$defs/node"}, "maxItems": 2},
            },
            "required": ["value"],
        }
    },
    "$ref": "#/$defs/node",
}


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        (
            TREE,
            '{"value": 1, "children": [{"value": 2}, {"value": 1, "children": []}]}',
            '{"value": 1, "children": [{"value": 3}]}',
        ),
        ({"type": "object", "properties": {"a": {"type": "integer"}}}, '{"a": 1}', '{"a": 1, "b": 2}'),
        ({"type": "object", "properties": {"a": {}}, "additionalProperties": True}, '{"a": 1, "b": 2}', '{"a": }'),
        (
            {
                "allOf": [
                    {"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"]},
                    {"type": "object", "properties": {"b": {"const": 2}}, "required": ["b"]},
                ]
            },
            '{"a": 1, "b": 2}',
            '{"a": 1}',
        ),
        (
            {"type": "object", "properties": {"a": {"const": 1}}, "required": ["a", "z"]},
            '{"a": 1, "z": [2]}',
            '{"a": 1}',
        ),
        ({"type": "number", "minimum": -0.5, "exclusiveMaximum": 2}, "1.99", "2"),
        (
            {"type": "array", "prefixItems": [{"const": "x"}], "items": {"type": "null"}, "minItems": 2},
            '["x", null]',
            '["x"]',
        ),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, '{"x": 1, "y": -2}', '{"x": 1.5}'),
        ({"type": "string"}, '"line\\nend and \\"quotes\\""', '"line\nend"'),
        ({"type": "object"}, '{"a": [1, {"b": null}]}', '{"a":1}'),
    ],
)
def test_schemas(compiler, tokenizer, schema, good, bad):
    for spell in (False, True):
        assert accepts(compiler, tokenizer, schema_of(schema), good, spell) is not None
    assert accepts(compiler, tokenizer, schema_of(schema), good)
    assert not accepts(compiler, tokenizer, schema_of(schema), bad)
    Draft202012Validator(schema).validate(json.loads(good))


@pytest.mark.parametrize(
    ("grammar", "good", "bad"),
    [
        (Grammar("regex", r"[12][0-9]{3}-(0[1-9]|1[0-2])"), "1999-12", "1999-13"),
        (Grammar("regex", "é+|日本"), "éé", "e"),
        (Grammar("choice", ("yes", "no", 'a "b"\n\\c', "日本")), 'a "b"\n\\c', "y"),
        (Grammar("choice", ("<|im_end|>", "x")), None, "<|im_end|>"),
        (Grammar("json_object"), '{"a": {}}', "[]"),
        (Grammar("lark", 'start: "(" start ")" | "x"'), "((x))", "((x)"),
        (Grammar("json_schema", {"const": "e\u0301<tool_call>"}), '"e\u0301<tool_call>"', '"\u00e9<tool_call>"'),
    ],
)
def test_other_grammars(compiler, tokenizer, grammar, good, bad):
    constraints = Constraints(grammar=grammar)
    if good is not None and "e\u0301" not in good:
        assert accepts(compiler, tokenizer, constraints, good)
    assert not accepts(compiler, tokenizer, constraints, bad)
    written = {walk(compiler, tokenizer, constraints, seed) for seed in range(6)} - {None}
    if grammar.kind == "choice":
        assert written <= set(grammar.source)
    elif grammar.kind == "regex":
        assert all(re.fullmatch(grammar.source, text) for text in written)
    elif good == '"e\u0301<tool_call>"':
        assert written == {good}


@pytest.mark.parametrize(
    ("choice", "parallel", "good", "bad"),
    [
        (
            "auto",
            True,
            ["", "Hello.", "<tool", CALL, f"I see.\n{CALL}", f"{CALL}\n{TIME}\n{CALL}"],
            [f"{CALL} and", f"{CALL}{CALL}", "So <tool_call>", '<tool_call>\n{"name": "no', "<|im_start|>"],
        ),
        ("auto", False, ["Hello.", f"I see.\n{CALL}"], [f"{CALL}\n{TIME}"]),
        ("required", True, [CALL, f"{CALL}\n{TIME}"], ["", "Hello.", f"I see.\n{CALL}", "\n" + CALL]),
        ("required", False, [TIME], [f"{TIME}\n{CALL}"]),
        (NamedTool("clock"), True, [TIME], [CALL, f"{TIME}\n{TIME}", ""]),
        ("none", True, ["", "Hello.", "a <tool_cal"], [CALL, "Hello <tool_call>"]),
    ],
)
def test_choices_of_tools(compiler, tokenizer, choice, parallel, good, bad):
    constraints = Constraints((WEATHER, CLOCK), choice, parallel)
    for text in good:
        assert accepts(compiler, tokenizer, constraints, text), text
        assert accepts(compiler, tokenizer, constraints, text, spell=True), text
    for text in bad:
        assert not accepts(compiler, tokenizer, constraints, text), text
        assert not accepts(compiler, tokenizer, constraints, text, spell=True) or text == "<|im_start|>", text


def test_an_answer_of_a_schema_or_calls(compiler, tokenizer):
    answer = Grammar("json_schema", {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]})
    for choice, good, bad in (
        ("auto", ['{"a": 1}', CALL], ["Hello"]),
        ("required", [CALL], ['{"a": 1}']),
        ("none", ['{"a": 1}'], [CALL, "x"]),
    ):
        constraints = Constraints((WEATHER,), choice, True, answer)
        assert all(accepts(compiler, tokenizer, constraints, text) for text in good)
        assert not any(accepts(compiler, tokenizer, constraints, text) for text in bad)


def nested(depth):
    schema = {"type": "integer"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


@pytest.mark.parametrize(
    "grammar",
    [
        Grammar("json_schema", {"type": "integer", "minimum": 5, "maximum": 3}),
        Grammar("json_schema", {"$ref": "#"}),
        Grammar("json_schema", {"$ref": "http://127.0.0.1:9/schema.json"}),
        Grammar("json_schema", {"$ref": "file:///etc/passwd"}),
        Grammar("json_schema", {"$ref": "#/$defs/none"}),
        Grammar(
            "json_schema",
            {
                "$defs": {"n": {"type": "object", "properties": {"n": {"$ref": "#/$defs/n"}}, "required": ["n"]}},
                "$ref": "#/$defs/n",
            },
        ),
        Grammar("json_schema", {"type": "array", "uniqueItems": True}),
        Grammar("json_schema", {"type": "string", "format": "idn-email"}),
        Grammar("json_schema", {"type": "objekt"}),
        Grammar("json_schema", {"properties": 5}),
        Grammar("json_schema", nested(300)),
        Grammar("json_schema", nested(900)),
        Grammar("json_schema", {"const": float("nan")}),
        Grammar("json_schema", {"enum": [f"value {number}" for number in range(80_000)]}),
        Grammar(
            "json_schema",
            {"type": "object", "properties": {f"p{number}": {"type": "string"} for number in range(3000)}},
        ),
        Grammar("json_schema", {"type": "string", "minLength": 2**63}),
        Grammar(
            "json_schema",
            {"allOf": [{"type": "string", "pattern": f"^(a|b)*a(a|b){{{size}}}$"} for size in range(10, 20)]},
        ),
        Grammar("regex", "x(a{1000}){1000}"),
        Grammar("regex", "((b{50})?(a{5,100}c)*){1000,}"),
        Grammar("json_schema", {"type": "object", "properties": {"a": {"type": "string", "pattern": "a{100000}"}}}),
        Grammar("regex", "(" * 100_000 + "a" + ")" * 100_000),
        Grammar("regex", "(a"),
        Grammar("regex", "(?=a)b"),
        Grammar("lark", "start: other"),
        Grammar("lark", "start: start"),
        Grammar("lark", 'start: "a" start'),
        Grammar("lark", "start: " + "(" * 20_000 + '"a"' + ")" * 20_000),
        Grammar("lark", 'start: text "!"\ntext[max_tokens=3]: /.*/'),
    ],
)
def test_what_cannot_be_used_is_refused_in_time(compiler, grammar):
    started = time.thread_time()
    with pytest.raises(InvalidRequest) as caught:
        compiler.compile(Constraints(grammar=grammar))
    assert time.thread_time() - started < 10
    assert caught.value.field == "grammar"
    assert len(str(caught.value)) < 400


def test_the_tool_at_fault_is_named(compiler):
    bad = Tool(
        "bad",
        "d",
        {"type": "object", "properties": {"a": {"type": "integer", "minimum": 2, "maximum": 1}}, "required": ["a"]},
    )
    with pytest.raises(InvalidRequest, match="unsatisfiable") as caught:
        compiler.compile(Constraints((WEATHER, bad)))
    assert caught.value.field == "tools.1.parameters"
    with pytest.raises(InvalidRequest, match="an object") as caught:
        compiler.compile(Constraints((Tool("list", "d", {"type": "array"}),)))
    assert caught.value.field == "tools.0.parameters"


def test_what_cannot_be_enforced_is_ignored_unless_strict(compiler, tokenizer):
    parameters = {"type": "object", "properties": {"a": {"type": "array", "items": {"const": 1}, "uniqueItems": True}}}
    twice = '<tool_call>\n{"name": "f", "arguments": {"a": [1, 1]}}\n</tool_call>'
    assert accepts(compiler, tokenizer, Constraints((Tool("f", "d", parameters),)), twice)
    with pytest.raises(InvalidRequest, match="uniqueItems"):
        compiler.compile(Constraints((Tool("f", "d", parameters, strict=True),)))


def test_equal_grammars_are_compiled_once(compiler):
    constraints = Constraints((WEATHER,), "required")
    first = compiler.compile(constraints)
    assert compiler.compile(Constraints((WEATHER,), "required")) is first
    assert compiler.compile(Constraints((WEATHER,), "auto")) is not first
    first.discard()
    assert compiler.compile(constraints) is not first


def test_a_guidance_key_of_the_clients_own_changes_nothing(compiler, tokenizer):
    constraints = schema_of({"type": "object", "x-guidance": {"whitespace_flexible": True}, "properties": {"a": {}}})
    assert not accepts(compiler, tokenizer, constraints, '{ "a": 1}')


@pytest.mark.parametrize(
    ("pattern", "repeat"),
    [
        ("", 1),
        ("a+(b|c)*", 1),
        ("(a{3}b){4}", 12),
        ("[(]{3}(a){4}", 4),
        (r"\({5}(z{2}\)){3}", 6),
        ("([{}]{2,3}|(b{5}c){6}){2,7}", 210),
        ("(?:x{2}[)]{5}y){7,}", 35),
        ("a{2}{3}", 6),
        ("a{,5}", 1),
    ],
)
def test_the_largest_repeat_of_a_pattern(pattern, repeat):
    assert largest_repeat(pattern) == repeat
