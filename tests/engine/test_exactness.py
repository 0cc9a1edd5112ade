"""Greedy text equals transformers' whichever way through scheduler and cache it takes; each way is forced and seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.engine.conftest import raw

from kilonova.core.types import Finished, TextDelta
from kilonova.engine.config import EngineConfig
from kilonova.engine.engine import Engine
from kilonova.models.checkpoint import save_decoder
from kilonova.models.decoder.model import Decoder
from kilonova.text.tokenizer import Tokenizer

NEW_TOKENS = 256
LAYOUTS = ("llama-biased", "mistral-sliding", "qwen2", "qwen3-mixed-windows", "qwen3_moe")
SHARED = tuple(range(7, 87))
NUM_PROMPTS = 4
# How much longer each prompt is than the one before: a block, so that all need their next one in the same step.
STAGGER = 16

Case = tuple[Decoder, Tokenizer, list[tuple[int, ...]], list[list[int]]]


@pytest.fixture(scope="module", params=LAYOUTS)
def case(
    request: pytest.FixtureRequest,
    make_decoder: Callable[[str], Decoder],
    tiny_tokenizer_directory: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Case:
    """A random model, a tokenizer that never stops, prompts, and transformers' greedy continuation of each."""
    from transformers import AutoModelForCausalLM

    config = replace(make_decoder(request.param).config, vocab_size=512, initializer_range=0.2)
    model = Decoder(config)
    model.init_weights(torch.Generator().manual_seed(5))
    directory = tmp_path_factory.mktemp(request.param)
    save_decoder(model, directory)
    reference = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    starts = torch.tensor([[*SHARED, 100 + 9 * number, 101 + 9 * number] for number in range(NUM_PROMPTS)])
    most = NEW_TOKENS + STAGGER * NUM_PROMPTS
    output = reference.generate(starts, do_sample=False, max_new_tokens=most, eos_token_id=None, pad_token_id=0)
    prompts, expected = [], []
    for number, tokens in enumerate(output.tolist()):
        end = starts.shape[1] + STAGGER * number
        prompts.append(tuple(tokens[:end]))
        expected.append(tokens[end : end + NEW_TOKENS])
    tokenizer = Tokenizer.from_directory(tiny_tokenizer_directory)
    tokenizer.stop_token_ids = frozenset()
    return model, tokenizer, prompts, expected


@pytest.fixture
def start(case: Case) -> Iterator[Callable[..., Engine]]:
    """Starts engines over the case's model."""
    engines: list[Engine] = []

    def start(**limits: int) -> Engine:
        engines.append(Engine(case[0], case[1], EngineConfig(**limits)))
        return engines[-1]

    yield start
    for engine in engines:
        engine.close()


def generate(engine: Engine, prompts: list[tuple[int, ...]]) -> tuple[list[list[int]], list[Finished]]:
    """Tokens of all prompts together, and how each ended."""
    with engine._changed:  # All of them wait before the first step, so that what follows does not depend on timing.
        generations = [
            engine.submit(raw(prompt, temperature=0, max_tokens=NEW_TOKENS, logprobs=0)) for prompt in prompts
        ]
    tokens, ends = [], []
    for generation in generations:
        events = list(generation)
        tokens.append([entry.token_id for event in events if isinstance(event, TextDelta) for entry in event.logprobs])
        ends.append(events[-1])
    return tokens, ends


def block_bytes(engine: Engine) -> int:
    """Bytes of one block of every layer."""
    cache = engine._runner.cache
    return sum(2 * keys[0].nbytes for keys in cache.keys)


def test_alone(case, start):
    assert generate(start(), case[2][3:])[0] == case[3][3:]


@pytest.mark.parametrize("chunk", [1, 30])
def test_in_chunks(case, start, chunk):
    engine = start()
    engine._scheduler._prefill_tokens = chunk
    engine._scheduler._mixed_prefill_tokens = chunk
    assert generate(engine, case[2][3:])[0] == case[3][3:]


def test_in_a_batch(case, start):
    engine = start()
    engine._scheduler._mixed_prefill_tokens = 10
    assert generate(engine, case[2])[0] == case[3]


def test_with_prefixes(case, start):
    engine = start()
    for number, (prompt, expected) in enumerate(zip(*case[2:], strict=True)):
        (tokens,), (finished,) = generate(engine, [prompt])
        assert tokens == expected
        assert finished.usage.cache_read_input_tokens == (80 if number else 0)
    # A conversation that goes on from its own answer.
    whole = (*case[2][2], *case[3][2])
    events = list(engine.submit(raw(whole[:300], temperature=0, max_tokens=len(whole) - 300, logprobs=0)))
    assert [entry.token_id for event in events[1:-1] for entry in event.logprobs] == list(whole[300:])
    assert events[-1].usage.cache_read_input_tokens == 288


def test_preempted(case, start):
    """Each sequence alone fits, all of them do not."""
    size = 4 * block_bytes(start())
    while (engine := start(max_num_seqs=4, kv_cache_bytes=size)).context_length < len(case[2][3]) + NEW_TOKENS:
        size = size * 5 // 4
    engine._scheduler._prefill_tokens = engine._scheduler._mixed_prefill_tokens = 8
    assert generate(engine, case[2])[0] == case[3]
    assert engine.stats().preemptions > 0
    assert engine._scheduler.blocks.is_whole()


def test_a_cache_of_less_than_the_steps_that_are_measured(case, start):
    """With more than one thread, an engine times steps of 64 tokens before its first request."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        size = 4 * block_bytes(start())
        engine = start(max_num_seqs=1, kv_cache_bytes=size)
        assert list(engine.submit(raw((5, 6, 7), max_tokens=4)))[-1].stop_reason == "max_tokens"
    finally:
        torch.set_num_threads(threads)


def test_everything_at_once(case, start):
    """Few places, chunks, prefixes, and prompts that are read while others generate."""
    engine = start(max_num_seqs=2, max_context=400)
    engine._scheduler._prefill_tokens = 50
    engine._scheduler._mixed_prefill_tokens = 9
    tokens, ends = generate(engine, case[2])
    assert tokens == case[3]
    assert sum(finished.usage.cache_read_input_tokens for finished in ends) > 0
    assert engine._scheduler.blocks.is_whole()
