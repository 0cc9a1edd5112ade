"""Tokens chosen by the native kernels against those that PyTorch chooses."""

from __future__ import annotations

import pytest
import torch

from kilonova.core.types import SamplingParams
from kilonova.engine import sampling
from kilonova.engine.native import library
from kilonova.engine.native.sampling import sample

pytestmark = pytest.mark.skipif(
    not library.instruction_sets(), reason="the native kernels are not built for this machine"
)

PARAMS = [
    SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p)
    for temperature in (0.0, 0.3, 1.0, 2.0)
    for top_k in (0, 1, 5, 300, 100_000)
    for top_p in (1e-6, 0.4, 0.95, 1.0)
]


@pytest.fixture(params=library.instruction_sets())
def context(request):
    return library.Context(request.param)


def random_logits(rows: int, vocab: int, spread: float, seed: int = 0) -> torch.Tensor:
    return spread * torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("vocab", [3, 97, 512, 8191])
@pytest.mark.parametrize("spread", [0.0, 0.1, 3.0, 30.0])
def test_tokens_are_those_of_the_definition(context, vocab, spread):
    logits = random_logits(len(PARAMS), vocab, spread)
    differences = 0
    for seed in range(20):
        draws = [(seed, index) for index in range(len(PARAMS))]
        found = sample(context, logits, PARAMS, draws)
        expected = sampling.sample(logits, PARAMS, draws)
        differences += sum(a != b for a, b in zip(found, expected, strict=True))
    # A draw next to the edge between two tokens may fall on the other side; so may a token at the edge of a filter.
    assert differences <= 2


def test_frequencies_follow_the_probabilities(context):
    one = SamplingParams(temperature=0.8, top_k=20, top_p=0.9)
    logits = random_logits(1, 200, 2.0)
    expected = sampling.probabilities(logits, [one])[0].double()
    expected /= expected.sum()
    count = 20_000
    rows = logits.expand(100, -1)
    tokens: list[int] = []
    for first in range(0, count, 100):
        tokens += sample(context, rows, [one] * 100, [(7, first + index) for index in range(100)])
    found = torch.bincount(torch.tensor(tokens), minlength=200).double()
    assert not found[expected == 0].any()
    kept = expected > 0
    statistic = ((found - count * expected) ** 2 / (count * expected))[kept].sum().item()
    freedom = int(kept.sum()) - 1
    assert abs(statistic - freedom) < 5 * (2 * freedom) ** 0.5


def test_ties_and_tokens_ruled_out(context):
    greedy, drawn = SamplingParams(temperature=0.0), SamplingParams(temperature=1.0, top_p=1.0)
    logits = torch.tensor([[1.0, 3.0, 3.0, 0.0]])
    assert sample(context, logits, [greedy], [(0, 0)]) == [1]
    only = torch.full((1, 40), -torch.inf)
    only[0, [5, 33]] = 0.0
    tokens = {sample(context, only, [drawn], [(seed, 0)])[0] for seed in range(60)}
    assert tokens == {5, 33}


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("place", [0, 11, 39])
def test_logits_that_are_not_finite(context, bad, place):
    logits = random_logits(2, 40, 1.0)
    logits[1, place] = bad
    params = [SamplingParams(temperature=0.0), SamplingParams(temperature=1.0)]
    found = sample(context, logits, params, [(0, 0), (0, 0)])
    assert found[0] == int(logits[0].argmax())
    assert found[1] == -1
    assert sample(context, torch.full((1, 9), -torch.inf), params[:1], [(0, 0)]) == [-1]
