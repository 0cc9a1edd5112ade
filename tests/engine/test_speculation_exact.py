"""Guessing changes how many steps a text takes, and nothing about the text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from tests.engine.conftest import raw

from kilonova.core.errors import CheckpointError
from kilonova.core.types import Finished, GenerationEvent, SamplingParams, TextDelta
from kilonova.engine.config import EngineConfig
from kilonova.engine.engine import Engine
from kilonova.engine.sampling import probabilities
from kilonova.engine.speculation import StepCost
from kilonova.models.decoder.model import Decoder
from kilonova.text.tokenizer import Tokenizer

CYCLE = tuple(range(40, 46))
PROMPT = (*CYCLE, *CYCLE)


@pytest.fixture
def decoder(tiny_decoder: Decoder) -> Decoder:
    """The tiny decoder, bent to say 40 to 45 over and over, though not always."""
    embedding = tiny_decoder.model.embed_tokens.weight
    with torch.no_grad():
        embedding.copy_(torch.randn(embedding.shape, generator=torch.Generator().manual_seed(1)))
        for layer in tiny_decoder.model.layers:
            layer.self_attn.o_proj.weight.mul_(0.3)
            layer.mlp.down_proj.weight.mul_(0.3)
        tiny_decoder.lm_head.weight.mul_(0.3)
        for token, following in zip(CYCLE, (*CYCLE[1:], CYCLE[0]), strict=True):
            tiny_decoder.lm_head.weight[following] += 0.2 * embedding[token]
    return tiny_decoder


@pytest.fixture
def start(decoder: Decoder, tiny_tokenizer: Tokenizer) -> Iterator[Callable[..., Engine]]:
    """Starts engines over the decoder; guesses always pay where they are made at all."""
    engines = []

    def build(draft_model: Decoder | None = None, **options: Any) -> Engine:
        engine = Engine(decoder, tiny_tokenizer, EngineConfig(**options), draft_model=draft_model)
        if engine._speculator is not None:
            engine._speculator._cost = StepCost(1.0, 0.0)
        engines.append(engine)
        return engine

    yield build
    for engine in engines:
        engine.close()


def count_steps(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of guesses in each step from now on."""
    steps: list[int] = []
    compute = engine._compute

    def counted(chunks):
        steps.append(sum(chunk.num_drafted for chunk in chunks))
        return compute(chunks)

    monkeypatch.setattr(engine, "_compute", counted)
    return steps


def events_without_times(events: list[GenerationEvent]) -> list[Any]:
    return [(event.stop_reason, event.usage) if isinstance(event, Finished) else event for event in events]


@pytest.mark.parametrize(
    "sampling",
    [{"temperature": 0.0}, {"temperature": 0.7, "top_k": 2, "seed": 5}, {"temperature": 0.4, "top_k": 3, "seed": 1}],
)
def test_text_reports_and_counts_are_those_without_guesses(start, monkeypatch, sampling):
    request = raw(PROMPT, max_tokens=60, logprobs=2, **sampling)
    expected = events_without_times(list(start(speculate=False).submit(request)))
    engine = start()
    steps = count_steps(engine, monkeypatch)
    found = events_without_times(list(engine.submit(request)))
    assert sum(steps) > 0
    texts = ["".join(event.text for event in events if isinstance(event, TextDelta)) for events in (expected, found)]
    assert texts[0] == texts[1]
    assert expected[-1] == found[-1]
    logprobs = [
        [(one.token_id, one.logprob) for event in events if isinstance(event, TextDelta) for one in event.logprobs]
        for events in (expected, found)
    ]
    assert [token for token, _ in logprobs[0]] == [token for token, _ in logprobs[1]]
    assert [value for _, value in logprobs[0]] == pytest.approx([value for _, value in logprobs[1]], abs=1e-4)


def test_greedy_repetition_takes_fewer_steps(start, monkeypatch):
    engine = start()
    steps = count_steps(engine, monkeypatch)
    events = list(engine.submit(raw(PROMPT, max_tokens=200, temperature=0.0, ignore_eos=True)))
    assert events[-1].usage.output_tokens == 200
    assert len(steps) < 100


def test_a_draft_model_of_its_own_is_always_right(start, decoder, monkeypatch):
    request = raw(tuple(range(30, 60)), max_tokens=64, temperature=0.9, seed=3, ignore_eos=True)
    expected = events_without_times(list(start(speculate=False).submit(request)))
    twin = Decoder(decoder.config)
    twin.load_state_dict(decoder.state_dict())
    engine = start(draft_model=twin)
    engine._speculator._draft_model.cost = StepCost(0.0, 0.0)
    steps = count_steps(engine, monkeypatch)
    assert events_without_times(list(engine.submit(request))) == expected
    assert len(steps) < 16


def test_many_requests_share_a_draft_model(start, decoder):
    other = Decoder(decoder.config)
    other.load_state_dict(
        {name: value + 0.02 * torch.randn_like(value) for name, value in decoder.state_dict().items()}
    )
    requests = [
        raw(tuple(range(20 + index, 40 + 3 * index)), max_tokens=20 + index, temperature=0.8, seed=index)
        for index in range(12)
    ]
    plain = start(speculate=False)
    expected = [events_without_times(list(plain.submit(request))) for request in requests]
    engine = start(draft_model=other.eval(), max_num_seqs=4)
    engine._speculator._draft_model.cost = StepCost(0.0, 0.0)
    generations = [engine.submit(request) for request in requests]
    assert [events_without_times(list(generation)) for generation in generations] == expected
    assert engine._scheduler.blocks.num_tokens == 0


def test_a_draft_model_of_another_vocabulary_is_refused(start, make_decoder):
    with pytest.raises(CheckpointError, match="vocabulary of 97 tokens"):
        start(draft_model=make_decoder("qwen2"))


def test_ten_thousand_samples_follow_the_distribution(start, decoder, monkeypatch):
    sampling = SamplingParams(temperature=0.6, top_k=3, top_p=1.0)
    engine = start(max_num_seqs=64, max_queue=10_000)
    steps = count_steps(engine, monkeypatch)
    count = 10_000
    generations = [
        engine.submit(raw(PROMPT, max_tokens=4, temperature=0.6, top_k=3, top_p=1.0, seed=seed, logprobs=0))
        for seed in range(count)
    ]
    found: Counter[tuple[int, ...]] = Counter()
    for generation in generations:
        deltas = [event for event in generation if isinstance(event, TextDelta)]
        found[tuple(one.token_id for delta in deltas for one in delta.logprobs)] += 1
    assert sum(steps) > count / 10
    expected = exact_distribution(decoder, sampling, 4, engine.tokenizer.stop_token_ids)
    assert found.keys() <= expected.keys()
    statistic = sum((found[text] - count * chance) ** 2 / (count * chance) for text, chance in expected.items())
    freedom = len(expected) - 1
    # Pearson's statistic has this mean, and twice it as variance.
    assert abs(statistic - freedom) < 5 * (2 * freedom) ** 0.5


@torch.no_grad()
def exact_distribution(
    model: Decoder, sampling: SamplingParams, length: int, ends: frozenset[int]
) -> dict[tuple[int, ...], float]:
    """The chance of every text of `length` tokens, shorter where an end token cuts it, which is not part of it."""
    chances: dict[tuple[int, ...], float] = {}
    open_texts = {(): 1.0}
    for _ in range(length):
        following: dict[tuple[int, ...], float] = {}
        for text, chance in open_texts.items():
            logits = model(torch.tensor([[*PROMPT, *text]]))[0, -1:]
            kept = probabilities(logits, [sampling])[0].double()
            kept /= kept.sum()
            for token in kept.nonzero()[:, 0].tolist():
                if token in ends:
                    chances[text] = chances.get(text, 0.0) + chance * kept[token].item()
                else:
                    following[(*text, token)] = chance * kept[token].item()
        open_texts = following
    return chances | open_texts
