"""The load generator, against a server whose times and token counts are known."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from kilonova.core.errors import ConfigError, KilonovaError
from kilonova.evals.latency.bedrock_endpoint import BedrockEndpoint
from kilonova.evals.latency.endpoint import Endpoint, EndpointError
from kilonova.evals.latency.load import LoadConfig, Measured, Target, measure
from kilonova.evals.latency.openai_endpoint import OpenAIEndpoint, base_url, only_model
from kilonova.evals.latency.report import LoadReport, summarise
from kilonova.text.tokenizer import Tokenizer

PROTOCOLS = ("openai", "openai-chat", "bedrock")
# A busy machine may be late; nothing can be early.
LATE = 0.15


def target(url: str, protocol: str, name: str = "paced", **more: Any) -> Target:
    endpoint: Endpoint
    if protocol == "bedrock":
        endpoint = BedrockEndpoint(url, "paced", api_key=more.pop("api_key", None), timeout=20)
    else:
        kind: Any = "chat" if protocol == "openai-chat" else "completions"
        endpoint = OpenAIEndpoint(url, "paced", kind=kind, api_key=more.pop("api_key", None), timeout=20)
    return Target(name, protocol, url, "paced", endpoint, is_chat=protocol != "openai", **more)


def run(config: LoadConfig, *targets: Target) -> LoadReport:
    return summarise(measured(config, *targets), config)


def measured(config: LoadConfig, *targets: Target) -> list[Measured]:
    return asyncio.run(measure(targets, config, quiet=True))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_times_are_those_of_the_server(paced: Any, protocol: str) -> None:
    paced.pace.first, paced.pace.between = 0.2, 0.03
    config = LoadConfig(concurrency=(1, 4), requests=4, input_tokens=150, output_tokens=11, warmup=1)

    report = run(config, target(paced.url, protocol, price_per_hour=3.6))

    one, four = report.targets[0].levels
    for level in (one, four):
        assert level.requests == 4
        assert level.input_tokens == (150, 150)
        assert level.output_tokens == (11, 11)
        assert level.tokens_per_event == 1
        assert 200 <= level.first_token_ms["p50"] <= 200 + 1000 * LATE
        assert level.inter_token_ms is not None
        assert 30 <= level.inter_token_ms["p50"] + 1 <= 60
        assert level.token_ms is not None
        assert 30 <= level.token_ms["p50"] + 1 <= 60
        assert 500 <= level.total_ms["p50"] <= 500 + 2000 * LATE
        assert level.total_ms["p50"] <= level.total_ms["p95"] <= level.total_ms["p99"]
        assert 150 / (0.2 + LATE) <= level.prefill_tokens_per_s <= 150 / 0.2
        assert level.output_tokens_per_s == pytest.approx(4 * 11 / level.seconds)
        assert level.total_tokens_per_s == pytest.approx(4 * 161 / level.seconds)
        # At 3.6 an hour a second costs 0.001.
        assert level.cost_per_million_output_tokens == pytest.approx(1000 / level.output_tokens_per_s)
        assert level.cost_per_million_tokens == pytest.approx(1000 / level.total_tokens_per_s)
    assert one.seconds >= 4 * 0.5
    assert four.output_tokens_per_s > 2 * one.output_tokens_per_s


def test_prompts_have_the_tokens_asked_for_and_share_no_beginning(paced: Any) -> None:
    config = LoadConfig(concurrency=(2,), requests=6, input_tokens=333, output_tokens=2, warmup=2, repeats=2, seed=5)

    found = measured(config, target(paced.url, "openai"))

    prompts = [body["prompt"] for body in paced.pace.bodies if body["max_tokens"] == 2]
    assert len(prompts) == 2 * (2 + 6)
    assert {paced.count_tokens(prompt) for prompt in prompts} == {333}
    assert len({prompt[:40] for prompt in prompts}) == len(prompts)
    assert found[0].prompts.build(333, "seed") == found[0].prompts.build(333, "seed")


def test_several_tokens_an_event_are_told_apart_from_slow_tokens(paced: Any) -> None:
    paced.pace.between, paced.pace.tokens_per_event = 0.04, 4
    config = LoadConfig(concurrency=(1,), requests=2, input_tokens=60, output_tokens=20, warmup=0)

    (level,) = run(config, target(paced.url, "openai")).targets[0].levels

    assert level.tokens_per_event == 4
    assert level.inter_token_ms is not None
    assert level.token_ms is not None
    assert level.inter_token_ms["p50"] + 1 >= 40
    # Four gaps for the nineteen tokens after the first.
    assert level.token_ms["p50"] == pytest.approx(level.inter_token_ms["mean"] * 4 / 19, rel=0.2)


def test_endpoints_take_turns_and_the_slower_one_is_named(paced: Any) -> None:
    paced.pace.first = 0.02
    config = LoadConfig(concurrency=(1,), requests=2, input_tokens=60, output_tokens=4, warmup=0, repeats=4)
    slow = target(paced.url, "bedrock", "slow")
    ask = slow.endpoint.ask

    async def ask_late(prompt: str, max_tokens: int) -> Any:
        reply = await ask(prompt, max_tokens)
        arrivals = tuple(5 + arrival for arrival in reply.arrivals)
        return type(reply)(arrivals, 5 + reply.total, reply.text, reply.input_tokens, reply.output_tokens)

    slow.endpoint.ask = ask_late  # type: ignore[method-assign]
    report = run(config, target(paced.url, "openai", "fast"), slow)

    asked = [
        "prompt" in body for body in paced.pace.bodies if body.get("max_tokens", 0) == 4 or "inferenceConfig" in body
    ]
    order = [kind for kind, before in zip(asked[-16:], [None, *asked[-16:]], strict=False) if kind != before]
    assert order == [True, False, True, False, True]
    first_token = next(one for one in report.comparisons if one.measure == "first_token_ms")
    assert (first_token.first, first_token.other) == ("fast", "slow")
    assert 1 < first_token.least <= first_token.ratio <= first_token.most
    assert first_token.other_value >= 5000


def test_refusals_are_counted_and_left_out(paced: Any) -> None:
    config = LoadConfig(concurrency=(1,), requests=6, input_tokens=60, output_tokens=4, warmup=0)
    found = target(paced.url, "openai")
    paced.pace.status = lambda number: 429 if number >= 25 and number % 3 == 0 else 200

    (level,) = run(config, found).targets[0].levels

    assert (level.requests, level.refused) == (4, 2)
    assert "429" in (level.last_refusal or "")
    assert "no place is free" in (level.last_refusal or "")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_server_that_refuses_everything_is_an_error(paced: Any, protocol: str) -> None:
    paced.pace.status = lambda number: 503 if number >= 25 else 200
    with pytest.raises(EndpointError, match="refused all 3 requests"):
        run(LoadConfig(concurrency=(1,), requests=3, input_tokens=60), target(paced.url, protocol))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_server_that_dies_in_the_middle_is_an_error(paced: Any, protocol: str) -> None:
    paced.pace.breaks_after = 3
    config = LoadConfig(concurrency=(2,), requests=4, input_tokens=60, output_tokens=9)

    with pytest.raises(
        EndpointError, match=r"broke the connection off after 3 events of an answer of 9 tokens.*0 of 1"
    ):
        run(config, target(paced.url, protocol))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_error_within_a_stream_is_a_refusal(paced: Any, protocol: str) -> None:
    paced.pace.fails_after = 2
    with pytest.raises(EndpointError, match="the model fell over"):
        run(LoadConfig(concurrency=(1,), requests=2, input_tokens=60, output_tokens=5), target(paced.url, protocol))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_unreachable_server_is_an_error(protocol: str) -> None:
    with pytest.raises(EndpointError, match="cannot be reached"):
        run(LoadConfig(concurrency=(1,)), target("http://127.0.0.1:1", protocol))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_key_is_sent_as_a_bearer_token(paced: Any, protocol: str) -> None:
    config = LoadConfig(concurrency=(1,), requests=1, input_tokens=60, output_tokens=2)
    run(config, target(paced.url, protocol, api_key="secret"))
    assert {headers["authorization"] for headers in paced.pace.headers} == {"Bearer secret"}


def test_ignore_eos_is_left_out_where_it_is_not_known(paced: Any) -> None:
    paced.pace.known_fields = ()
    config = LoadConfig(concurrency=(1,), requests=2, input_tokens=60, output_tokens=2, warmup=0)
    report = run(config, target(paced.url, "openai"))
    assert report.targets[0].settings == {"temperature": 0, "ignore_eos": False}
    assert ["ignore_eos" in body for body in paced.pace.bodies[:3]] == [True, False, False]


def test_tokens_are_counted_here_where_the_server_does_not(paced: Any, tiny_tokenizer_directory: Path) -> None:
    paced.pace.usage = False
    config = LoadConfig(concurrency=(1,), requests=2, input_tokens=150, output_tokens=6, warmup=0)
    with pytest.raises(EndpointError, match="--tokenizer"):
        run(config, target(paced.url, "openai"))

    tokenizer = Tokenizer.from_directory(tiny_tokenizer_directory)
    report = run(config, target(paced.url, "openai", tokenizer=tokenizer))

    assert report.targets[0].counted_by == "tokenizer"
    (level,) = report.targets[0].levels
    assert level.input_tokens == (150, 150)
    words = len(tokenizer.encode("word " * 6))
    assert level.output_tokens == (words, words)
    prompts = [body["prompt"] for body in paced.pace.bodies if body["max_tokens"] == 6]
    assert {len(tokenizer.encode(prompt)) for prompt in prompts} == {150}


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"concurrency": ()}, "concurrency"),
        ({"concurrency": (0, 1)}, "concurrency"),
        ({"concurrency": (2, 2)}, "concurrency"),
        ({"requests": 0}, "requests"),
        ({"output_tokens": 1}, "output_tokens"),
        ({"repeats": 0}, "repeats"),
    ],
)
def test_wrong_settings_are_named(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        LoadConfig(**wrong)


def test_a_prompt_too_short_for_a_word_is_named(paced: Any) -> None:
    with pytest.raises(ConfigError, match="at least 8"):
        run(LoadConfig(input_tokens=7), target(paced.url, "openai"))


def test_urls_and_models() -> None:
    assert base_url("http://host:1") == base_url("http://host:1/v1/") == "http://host:1/v1"
    assert base_url("https://host/openai/v2") == "https://host/openai/v2"
    with pytest.raises(ConfigError, match="--url host:1"):
        base_url("host:1")


def test_a_server_of_one_model_needs_no_name(paced: Any) -> None:
    assert only_model(paced.url) == "paced"
    with pytest.raises(KilonovaError, match="cannot be read"):
        only_model("http://127.0.0.1:1")
