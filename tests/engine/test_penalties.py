import numpy as np
import pytest
import torch
from tests.engine.conftest import raw
from transformers import MinPLogitsWarper, RepetitionPenaltyLogitsProcessor

from kilonova.core.types import Finished, SamplingParams, TextDelta
from kilonova.engine.penalties import Penalties, edits_logits

VOCAB = 50
PROMPT = [3, 7, 7, 11]
OUTPUT = [5, 7, 5, 5, 20]


def logits(rows=1, seed=0):
    return 4 * torch.randn(rows, VOCAB, generator=torch.Generator().manual_seed(seed))


def edited(original, token_ids=(*PROMPT, *OUTPUT), guesses=(), **sampling):
    copy = original.clone()
    Penalties(SamplingParams(**sampling), len(PROMPT)).apply(copy, list(token_ids), list(guesses))
    return copy


def test_repetition_penalty_is_that_of_transformers():
    original = logits()
    expected = RepetitionPenaltyLogitsProcessor(1.7)(torch.tensor([PROMPT + OUTPUT]), original.clone())
    torch.testing.assert_close(edited(original, repetition_penalty=1.7), expected)


@pytest.mark.parametrize("min_p", [0.001, 0.05, 0.4, 1.0])
def test_min_p_is_that_of_transformers(min_p):
    original = logits()
    expected = MinPLogitsWarper(min_p)(None, original.clone())
    torch.testing.assert_close(edited(original, min_p=min_p), expected)


def test_frequency_and_presence_penalties_are_of_generated_tokens():
    original = logits()
    expected = original.double().numpy()[0]
    for token, count in ((5, 3), (7, 1), (20, 1)):
        expected[token] += -count * 0.6 - 0.25
    result = edited(original, frequency_penalty=0.6, presence_penalty=0.25)
    np.testing.assert_allclose(result[0].double().numpy(), expected, rtol=1e-6, atol=1e-6)


def test_all_together_in_order():
    original = logits()
    expected = original.double()[0]
    for token in {*PROMPT, *OUTPUT}:
        expected[token] = expected[token] / 1.3 if expected[token] > 0 else expected[token] * 1.3
    for token in set(OUTPUT):
        expected[token] -= 0.5 * OUTPUT.count(token) + 1.5
    expected[9] += 4
    expected[5] -= 100
    expected[expected.softmax(0) < 0.02 * expected.softmax(0).max()] = -torch.inf
    result = edited(
        original,
        repetition_penalty=1.3,
        frequency_penalty=0.5,
        presence_penalty=1.5,
        logit_bias={9: 4.0, 5: -100},
        min_p=0.02,
    )
    torch.testing.assert_close(result[0].double(), expected, rtol=1e-5, atol=1e-5)
    assert torch.isinf(result).sum() > 5


def test_guesses_count_as_generated_for_the_rows_after_them():
    original = logits(4)
    sampling = {"repetition_penalty": 1.2, "frequency_penalty": 0.5, "presence_penalty": 0.5}
    penalties = Penalties(SamplingParams(**sampling), len(PROMPT))
    penalties.apply(logits(), PROMPT, [])
    result = original.clone()
    penalties.apply(result, PROMPT + OUTPUT, [8, 5, 8])
    for row in range(4):
        alone = edited(original[row : row + 1], [*PROMPT, *OUTPUT, *[8, 5, 8][:row]], **sampling)
        torch.testing.assert_close(result[row : row + 1], alone)
    # Guesses leave no trace.
    following = logits(seed=1)
    penalties.apply(following, [*PROMPT, *OUTPUT, 9], [])
    torch.testing.assert_close(following, edited(logits(seed=1), [*PROMPT, *OUTPUT, 9], **sampling))


@pytest.mark.parametrize(
    ("sampling", "edits"),
    [({}, False), ({"temperature": 1.0, "top_k": 3}, False), ({"min_p": 0.1}, True), ({"logit_bias": {1: 1.0}}, True)],
)
def test_only_what_is_asked_for_costs(sampling, edits):
    assert edits_logits(SamplingParams(**sampling)) is edits


def run(engine, **sampling):
    events = list(engine.submit(raw("the quick", max_tokens=24, ignore_eos=True, **sampling)))
    assert isinstance(events[-1], Finished)
    reported = [entry for event in events if isinstance(event, TextDelta) for entry in event.logprobs]
    return [entry.token_id for entry in reported], [entry.logprob for entry in reported]


def test_the_engine_obeys(engine):
    free, free_logprobs = run(engine, temperature=0, logprobs=1)
    banned, banned_logprobs = run(engine, temperature=0, logprobs=1, logit_bias={free[0]: -100})
    assert free[0] not in banned
    # The report is of what the model gave: the banned token is still its likeliest.
    assert banned_logprobs[0] < free_logprobs[0]
    assert len(set(run(engine, temperature=0, logprobs=0, presence_penalty=2, frequency_penalty=2)[0])) >= len(
        set(free)
    )
    only = run(engine, temperature=2.0, seed=1, logprobs=0, min_p=1.0)[0]
    assert only == free
    forced = run(engine, temperature=1.0, seed=1, logprobs=0, logit_bias={17: 100})[0]
    assert forced == [17] * 24
