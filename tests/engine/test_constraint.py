"""A random model writes what the grammar wants, whatever else goes on in the engine."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from llguidance import LLParserLimits
from tests.text.schemas import LEAVES, SCHEMAS, objects

from kilonova.core.errors import EngineError, InvalidRequest
from kilonova.core.types import (
    Finished,
    GenerationEvent,
    GenerationRequest,
    Grammar,
    NamedTool,
    SamplingParams,
    TextDelta,
    Tool,
    ToolInputDelta,
    ToolUse,
    ToolUseStart,
)
from kilonova.engine import runner
from kilonova.engine.config import EngineConfig
from kilonova.engine.engine import Engine
from kilonova.engine.speculation import StepCost
from kilonova.models.decoder.model import Decoder
from kilonova.text.tokenizer import Tokenizer

DAYS = {"type": "array", "items": {"enum": ["Monday", "Tuesday", "Sunday"]}, "minItems": 1, "maxItems": 3}
TRIP = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 8},
        "days": DAYS,
        "by": {"anyOf": [{"const": "train"}, {"type": "null"}]},
    },
    "required": ["city", "days"],
}
TOOLS = (Tool("plan_trip", "d", TRIP), Tool("clock", "d", {"type": "object", "properties": {}}))
SCHEMAS_BY_TOOL = {tool.name: tool.parameters for tool in TOOLS}
DATE = Grammar("regex", "[12][0-9]{3}-(0[1-9]|1[0-2]) and then (some|none)")


@pytest.fixture
def start(tiny_decoder: Decoder, tiny_tokenizer: Tokenizer) -> Iterator[Callable[..., Engine]]:
    """Starts engines over the tiny decoder; guesses always pay where they are made at all."""
    engines = []

    def build(**options: Any) -> Engine:
        engine = Engine(tiny_decoder, tiny_tokenizer, EngineConfig(**options))
        if engine._speculator is not None:
            engine._speculator._cost = StepCost(1.0, 0.0)
        engines.append(engine)
        return engine

    yield build
    for engine in engines:
        engine.close()


def ask(
    tools: tuple[Tool, ...] = (),
    *,
    grammar: Grammar | None = None,
    tool_choice: Any = "auto",
    parallel: bool = True,
    **sampling: Any,
) -> GenerationRequest:
    return GenerationRequest(
        model="tiny",
        prompt="the quick",
        tools=tools,
        grammar=grammar,
        tool_choice=tool_choice,
        parallel_tool_calls=parallel,
        sampling=SamplingParams(**{"temperature": 1.0, "top_p": 1.0, "max_tokens": 200, "seed": 0, **sampling}),
    )


def text_of(events: list[GenerationEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def uses_of(events: list[GenerationEvent]) -> list[tuple[str, Any]]:
    """The calls, whose pieces are checked."""
    uses = []
    pieces: list[str] = []
    begun: ToolUseStart | None = None
    for one in events:
        if isinstance(one, ToolUseStart):
            assert begun is None
            begun, pieces = one, []
        elif isinstance(one, ToolInputDelta):
            assert begun is not None
            assert one.text
            pieces.append(one.text)
        elif isinstance(one, ToolUse):
            assert begun is not None
            assert (begun.id, begun.name) == (one.block.id, one.block.name)
            assert json.loads("".join(pieces)) == one.block.input
            uses.append((one.block.name, one.block.input))
            begun = None
        elif isinstance(one, TextDelta):
            assert begun is None
    return uses


def content_of(events: list[GenerationEvent]) -> tuple[str, list[tuple[str, Any]], str, int]:
    finished = events[-1]
    assert isinstance(finished, Finished)
    return text_of(events), uses_of(events), finished.stop_reason, finished.usage.output_tokens


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(schema=SCHEMAS, seed=st.integers(0, 2**32), temperature=st.sampled_from([0.0, 1.0, 2.0]))
def test_an_answer_fits_its_schema(engine, schema, seed, temperature):
    request = ask(grammar=Grammar("json_schema", schema), seed=seed, temperature=temperature, max_tokens=300)
    text, _, reason, _ = content_of(list(engine.submit(request)))
    event(reason)
    if reason == "end_turn":
        Draft202012Validator(schema).validate(json.loads(text))
    else:
        assert reason == "max_tokens"


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(parameters=st.lists(objects(LEAVES), min_size=1, max_size=3), seed=st.integers(0, 2**32), parallel=st.booleans())
def test_calls_fit_their_schemas(engine, parameters, seed, parallel):
    tools = tuple(Tool(f"tool_{number}", "d", schema) for number, schema in enumerate(parameters))
    events = list(engine.submit(ask(tools, tool_choice="required", parallel=parallel, seed=seed)))
    text, uses, reason, _ = content_of(events)
    event(reason)
    assert not text
    assert reason == "max_tokens" or len(uses) == 1 or (uses and parallel)
    for name, value in uses:
        Draft202012Validator(parameters[int(name.removeprefix("tool_"))]).validate(value)


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("speculate", [True, False])
def test_every_choice_of_tools(start, monkeypatch, native, speculate):
    if not native:
        monkeypatch.setattr(runner, "instruction_sets", tuple)
    engine = start(speculate=speculate)
    seen = set()
    for seed in range(2):
        for choice in ("auto", "required", "none", NamedTool("clock")):
            request = ask(TOOLS, tool_choice=choice, seed=seed, max_tokens=100)
            text, uses, reason, _ = content_of(list(engine.submit(request)))
            for name, value in uses:
                Draft202012Validator(SCHEMAS_BY_TOOL[name]).validate(value)
                seen.add(name)
            assert "<tool_call>" not in text
            if choice == "none":
                assert not uses
            elif choice == NamedTool("clock"):
                assert (text, uses, reason) == ("", [("clock", {})], "tool_use")
            elif choice == "required":
                assert not text
                assert uses or reason == "max_tokens"
    assert "clock" in seen


def test_a_call_begins_wherever_the_model_says_so(start, tiny_tokenizer):
    opening = tiny_tokenizer.token_id("<tool_call>")
    engine = start()
    called = 0
    for seed in range(8):
        text, uses, _, _ = content_of(list(engine.submit(ask(TOOLS, seed=seed, logit_bias={opening: 6.0}))))
        called += bool(uses) and bool(text)
        for name, value in uses:
            Draft202012Validator(SCHEMAS_BY_TOOL[name]).validate(value)
    assert called >= 2


def test_calls_that_max_tokens_cuts_off(start):
    engine = start()
    request = ask(TOOLS, tool_choice=NamedTool("plan_trip"))
    whole = list(engine.submit(request))
    ((_, value),) = uses_of(whole)
    pieces = "".join(one.text for one in whole if isinstance(one, ToolInputDelta))
    for most in range(1, whole[-1].usage.output_tokens - 1):
        events = list(engine.submit(ask(TOOLS, tool_choice=NamedTool("plan_trip"), max_tokens=most, logprobs=0)))
        text, uses, reason, count = content_of(events)
        assert (text, reason, count) == ("", "max_tokens", most)
        assert pieces.startswith("".join(one.text for one in events if isinstance(one, ToolInputDelta)))
        # The end of the turn may be what is missing.
        assert uses == [] or uses == [("plan_trip", value)]
        assert not any(one.logprobs for one in events if isinstance(one, TextDelta))


REQUESTS = [
    ask(TOOLS, tool_choice="required", seed=1),
    ask(seed=2, max_tokens=60),
    ask(grammar=Grammar("json_schema", TRIP), seed=3),
    ask(seed=4, max_tokens=60, repetition_penalty=1.3, presence_penalty=0.5, min_p=0.05),
    ask(TOOLS, seed=5, max_tokens=60),
    ask(grammar=DATE, temperature=0, seed=6),
    ask(grammar=Grammar("choice", ("the quick brown fox", "the lazy dog")), seed=7, frequency_penalty=1.0),
    ask(grammar=Grammar("json_object"), seed=8, max_tokens=50),
]


def test_neither_company_nor_guesses_change_a_text(start, monkeypatch):
    plain = start(speculate=False)
    expected = [content_of(list(plain.submit(request))) for request in REQUESTS]
    assert [reason for _, _, reason, _ in expected[:1]] == ["tool_use"]
    assert re.fullmatch(DATE.source, expected[5][0])
    for options in ({"speculate": False}, {}, {"max_num_seqs": 3}):
        engine = start(**options)
        with engine._changed:
            generations = [engine.submit(request) for request in REQUESTS]
        assert [content_of(list(generation)) for generation in generations] == expected
    guessing = start()
    assert [content_of(list(guessing.submit(request))) for request in REQUESTS] == expected


def test_what_is_forced_takes_few_steps(start):
    def count(engine: Engine) -> int:
        before = engine._runner.step
        steps = []
        engine._runner.step = lambda tokens: steps.append(len(tokens)) or before(tokens)  # type: ignore[method-assign]
        text, uses, _, tokens = content_of(list(engine.submit(ask(TOOLS, tool_choice=NamedTool("clock")))))
        assert (text, uses) == ("", [("clock", {})])
        assert tokens >= 20
        return len(steps)

    assert count(start()) * 3 < count(start(speculate=False))


def test_an_answer_outlasts_a_preemption(start):
    request = ask(grammar=Grammar("json_schema", {**DAYS, "minItems": 14, "maxItems": 14}), seed=3, max_tokens=180)
    whole = start()
    expected = content_of(list(whole.submit(request)))
    assert len(json.loads(expected[0])) == 14
    cache = whole._runner.cache
    size = 14 * sum(2 * keys[0].nbytes for keys in cache.keys)
    engine = start(kv_cache_bytes=size)
    with engine._changed:
        generations = [engine.submit(request) for _ in range(4)]
    assert [content_of(list(generation)) for generation in generations] == [expected] * 4
    assert engine.stats().preemptions > 0


def test_reports_are_of_the_model_and_not_of_the_grammar(start):
    engine = start()
    (first,) = [
        one for one in engine.submit(ask(max_tokens=1, temperature=0, logprobs=3)) if isinstance(one, TextDelta)
    ]
    free = first.logprobs[0]
    events = list(engine.submit(ask(grammar=Grammar("choice", ("0", "7")), temperature=0, logprobs=3)))
    reports = [entry for one in events if isinstance(one, TextDelta) for entry in one.logprobs]
    assert reports[0].text in ("0", "7")
    assert reports[0].top == free.top
    assert reports[0].logprob <= free.logprob


def test_ignore_eos_ends_where_nothing_may_follow(start):
    engine = start()
    digits = Grammar("regex", "[0-9]{0,30}")
    text, _, reason, count = content_of(list(engine.submit(ask(grammar=digits, ignore_eos=True))))
    assert (len(text), reason) == (30, "end_turn")
    text, _, reason, count = content_of(
        list(engine.submit(ask(TOOLS, ignore_eos=True, max_tokens=70, tool_choice="none")))
    )
    assert (reason, count) == ("max_tokens", 70)


def test_stop_sequences_end_a_grammars_text(start):
    text, _, reason, _ = content_of(list(start().submit(ask(grammar=DATE, stop=(" and",)))))
    assert reason == "stop_sequence"
    assert re.fullmatch("[12][0-9]{3}-[01][0-9]", text)


def test_a_grammar_that_grows_too_complex_fails_alone_and_starts_afresh(start):
    engine = start()
    engine._grammars._limits = LLParserLimits(max_lexer_states=60, verbose_errors=False)
    long = Grammar("regex", "[a-f]{500}")
    with engine._changed:
        failing, other = engine.submit(ask(grammar=long, max_tokens=300)), engine.submit(ask(seed=9, max_tokens=50))
    with pytest.raises(EngineError, match="too complex"):
        list(failing)
    assert content_of(list(other))[3] == 50
    engine._grammars._limits = LLParserLimits()
    assert content_of(list(engine.submit(ask(grammar=long, max_tokens=20))))[3] == 20


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (ask(tool_choice="required"), "tool_choice"),
        (ask(TOOLS, tool_choice=NamedTool("other")), "tool_choice"),
        (ask(TOOLS, tool_choice="maybe"), "tool_choice"),
        (ask((*TOOLS, TOOLS[0])), "tools.2.name"),
        (ask((Tool("a", "d", {"type": "string"}),)), "tools.0.parameters"),
        (ask(grammar=Grammar("choice", ())), "grammar"),
        (ask(grammar=Grammar("choice", ("a", ""))), "grammar"),
        (ask(grammar=Grammar("regex", {"a": 1})), "grammar"),
        (ask(grammar=Grammar("json_schema", "{}")), "grammar"),
        (ask(grammar=Grammar("ebnf", "x")), "grammar"),  # type: ignore[arg-type]
        (ask(grammar=Grammar("regex", "(a")), "grammar"),
    ],
)
def test_requests_that_cannot_be_met(engine, request_, field):
    with pytest.raises(InvalidRequest) as caught:
        engine.submit(request_)
    assert caught.value.field == field
