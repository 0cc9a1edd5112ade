"""Prefix reuse, cache points and limits of the cache, through the engine."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from tests.engine.conftest import chat, raw

from kilonova.core.errors import ConfigError, ContextLengthExceeded, InvalidRequest
from kilonova.core.types import (
    CachePointBlock,
    Finished,
    GenerationEvent,
    GenerationRequest,
    Message,
    TextBlock,
    TextDelta,
    Usage,
)
from kilonova.engine.config import EngineConfig
from kilonova.engine.engine import Engine
from kilonova.models.decoder.model import Decoder
from kilonova.text.tokenizer import Tokenizer

PROMPT = tuple(range(100, 200))


@pytest.fixture
def start(tiny_decoder: Decoder, tiny_tokenizer: Tokenizer) -> Iterator[Callable[..., Engine]]:
    engines: list[Engine] = []

    def start(**limits: int) -> Engine:
        engines.append(Engine(tiny_decoder, tiny_tokenizer, EngineConfig(**limits)))
        return engines[-1]

    yield start
    for engine in engines:
        engine.close()


def run(engine: Engine, request: GenerationRequest) -> list[GenerationEvent]:
    return list(engine.submit(request))


def usage(engine: Engine, request: GenerationRequest) -> Usage:
    finished = run(engine, request)[-1]
    assert isinstance(finished, Finished)
    return finished.usage


def tokens_of(events: list[GenerationEvent]) -> list[int]:
    return [entry.token_id for event in events if isinstance(event, TextDelta) for entry in event.logprobs]


def bytes_of(engine: Engine, num_blocks: int) -> int:
    return num_blocks * sum(2 * keys[0].nbytes for keys in engine._runner.cache.keys)


def test_a_second_request_reads_the_prefix_from_the_cache(start):
    engine = start()
    first = usage(engine, raw(PROMPT, temperature=0, max_tokens=1))
    second = usage(engine, raw((*PROMPT[:90], 7, 8), temperature=0, max_tokens=1))
    assert first == Usage(100, 1)
    assert second == Usage(92, 1, cache_read_input_tokens=80)
    assert (second.total_tokens, second.uncached_input_tokens) == (93, 12)


def test_tenants_share_nothing(start):
    engine = start()
    for tenant, expected in (("a", 0), ("b", 0), ("a", 96), ("", 0)):
        request = replace(raw(PROMPT, max_tokens=1), tenant=tenant)
        assert usage(engine, request).cache_read_input_tokens == expected


def test_prompt_logprobs_read_every_token_again(start):
    engine = start(max_num_seqs=2)
    request = raw(PROMPT, temperature=0, max_tokens=1, prompt_logprobs=1)
    first = run(engine, request)
    second = run(engine, request)
    assert second[-1].usage.cache_read_input_tokens == 0
    assert len(second[0].logprobs) == 100
    assert [entry.token_id for entry in second[0].logprobs[1:]] == list(PROMPT[1:])
    for one, other in zip(first[0].logprobs[1:], second[0].logprobs[1:], strict=True):
        assert one.logprob == pytest.approx(other.logprob, abs=1e-5)


def test_prompt_logprobs_outlast_a_preemption(start):
    whole = start()
    request = raw(tuple(range(60)), temperature=0, max_tokens=60, prompt_logprobs=0, logprobs=0)
    expected = run(whole, request)
    engine = start(kv_cache_bytes=bytes_of(whole, 12))
    others = [engine.submit(raw(PROMPT[:40], temperature=0, max_tokens=80)) for _ in range(2)]
    events = run(engine, request)
    assert all(list(other)[-1].usage.output_tokens == 80 for other in others)
    assert engine.stats().preemptions > 0
    assert tokens_of(events) == tokens_of(expected)
    assert len(events[0].logprobs) == 60
    for one, other in zip(events[0].logprobs[1:], expected[0].logprobs[1:], strict=True):
        assert (one.token_id, one.logprob) == (other.token_id, pytest.approx(other.logprob, abs=1e-4))


def test_sampled_text_outlasts_a_preemption(start):
    requests = [raw(PROMPT[:20], seed=seed, temperature=1.0, top_p=1.0, max_tokens=90, logprobs=0) for seed in range(4)]
    whole = start()
    expected = [tokens_of(run(whole, request)) for request in requests]
    engine = start(kv_cache_bytes=bytes_of(whole, 12))
    generations = [engine.submit(request) for request in requests]
    assert [tokens_of(list(generation)) for generation in generations] == expected
    assert engine.stats().preemptions > 0


def conversation(question: str, ttl: int = 300) -> GenerationRequest:
    system = Message("system", (TextBlock("the quick brown fox " * 20), CachePointBlock(ttl)))
    return replace(chat("x", max_tokens=1), messages=(system, Message("user", (TextBlock(question),))))


def test_a_cache_point_is_counted_when_it_is_written_and_when_it_is_read(start):
    engine = start()
    request = conversation("one")
    point = engine.tokenizer.encode_chat(request.messages[:1], add_generation_prompt=False)
    kept = len(point) // 16 * 16
    assert kept > 32
    written = usage(engine, request)
    assert (written.cache_write_input_tokens, written.cache_read_input_tokens) == (kept, 0)
    assert engine.stats().kv_blocks.pinned == kept // 16
    read = usage(engine, conversation("two"))
    assert (read.cache_write_input_tokens, read.cache_read_input_tokens) == (0, kept)
    assert read.input_tokens == read.uncached_input_tokens + kept


def test_a_pinned_prefix_outlasts_what_fills_the_cache_until_its_time_is_over(start):
    engine = start(max_num_seqs=1)
    now = 0.0
    for group in engine._scheduler.blocks.groups:
        group.pool._clock = lambda: now

    def fill() -> None:
        for first in range(5, 50):
            run(engine, raw((first, *range(400)), max_tokens=1))

    usage(engine, conversation("one"))
    fill()
    assert engine.stats().kv_blocks.free < 5
    assert usage(engine, conversation("two")).cache_read_input_tokens > 0
    now = 299.0
    fill()
    assert usage(engine, conversation("three")).cache_read_input_tokens > 0
    now = 299.0 + 301
    fill()
    assert usage(engine, conversation("four")).cache_read_input_tokens == 0


def test_new_weights_make_old_prefixes_void(start, tiny_decoder):
    engine = start()
    request = raw(PROMPT, temperature=0, max_tokens=20, logprobs=0)
    before = tokens_of(run(engine, request))
    with torch.no_grad():
        for layer in tiny_decoder.model.layers:
            layer.self_attn.v_proj.weight.mul_(-1)
    engine.reset_prefix_cache()
    events = run(engine, request)
    assert events[-1].usage.cache_read_input_tokens == 0
    with torch.no_grad():
        ids = list(PROMPT)
        for _ in range(20):
            ids.append(int(tiny_decoder(torch.tensor([ids]))[0, -1].argmax()))
    assert tokens_of(events) == ids[100:] != before


def test_a_step_that_failed_leaves_no_prefix(start, tiny_decoder, monkeypatch):
    engine = start()
    monkeypatch.setattr(engine._runner, "step", lambda tokens: 1 / 0)
    with pytest.raises(Exception, match="step failed"):
        run(engine, raw(PROMPT, max_tokens=1))
    monkeypatch.undo()
    assert usage(engine, raw(PROMPT, max_tokens=1)).cache_read_input_tokens == 0


def test_what_can_never_fit_the_cache_is_refused(start, caplog):
    probe = start()
    engine = start(kv_cache_bytes=bytes_of(probe, 6))
    assert engine.context_length == 80
    assert "80 tokens" in caplog.text
    with pytest.raises(ContextLengthExceeded, match="80 tokens") as caught:
        engine.submit(raw(PROMPT, max_tokens=1))
    assert caught.value.field == "prompt"
    with pytest.raises(ContextLengthExceeded):
        engine.submit(raw(PROMPT[:50], max_tokens=31))
    assert usage(engine, raw(PROMPT[:50], max_tokens=30, temperature=0)).output_tokens == 30
    finished = run(engine, raw(PROMPT[:50], temperature=0))[-1]
    assert (finished.stop_reason, finished.usage.total_tokens) == ("model_context_window_exceeded", 80)
    with pytest.raises(ConfigError, match="kv_cache_bytes"):
        start(kv_cache_bytes=100)


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (replace(chat("x"), service_tier="fast"), "service_tier"),
        (conversation("x", ttl=0), "ttl"),
        (replace(chat("x"), messages=(Message("user", (TextBlock("x"), *[CachePointBlock()] * 5)),)), "messages"),
    ],
)
def test_bad_tiers_and_cache_points_are_refused(engine, request_, field):
    with pytest.raises(InvalidRequest, match=field) as caught:
        engine.submit(request_)
    assert caught.value.field == field


def test_a_higher_tier_is_served_first(start):
    engine = start(max_num_seqs=1)
    running = engine.submit(raw(PROMPT, temperature=0, max_tokens=40))
    next(running)
    waiting = {
        tier: engine.submit(replace(raw((5, 6, 7), temperature=0, max_tokens=20), service_tier=tier))
        for tier in ("flex", "default", "priority")
    }
    first_tokens = {tier: list(generation)[-1].time_to_first_token for tier, generation in waiting.items()}
    assert sorted(first_tokens, key=first_tokens.__getitem__) == ["priority", "default", "flex"]
    list(running)


def test_random_requests_leave_every_block_free(start):
    """Requests arrive, are cancelled and finish, in a cache too small for all of them."""
    probe = start()
    engine = start(max_num_seqs=6, kv_cache_bytes=bytes_of(probe, 16))
    engine._scheduler._prefill_tokens = 40
    random_ = random.Random(0)
    untouched = engine.stats().kv_blocks
    live = []
    for _ in range(70):
        prompt = tuple(random_.randrange(5, 8) for _ in range(random_.randint(1, 4))) * random_.randint(1, 30)
        request = raw(prompt, temperature=1.0, max_tokens=random_.randint(1, 60))
        live.append(engine.submit(replace(request, service_tier=random_.choice(("flex", "default", "priority")))))
        if random_.random() < 0.4:
            random_.choice(live).cancel()
        if len(live) > 12:
            list(live.pop(0))
    for generation in live:
        list(generation)
    stats = engine.stats()
    assert (stats.running, stats.waiting, stats.kv_tokens, stats.kv_blocks.used) == (0, 0, 0, 0)
    assert stats.preemptions > 0
    assert engine._scheduler.blocks.is_whole()
    engine.reset_prefix_cache()
    assert engine.stats().kv_blocks == untouched
