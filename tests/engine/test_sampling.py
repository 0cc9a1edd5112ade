import math

import numpy as np
import pytest
import torch

from kilonova.core.types import SamplingParams
from kilonova.engine.sampling import logprobs, probabilities, sample, uniform

DRAWS = 20_000


def exact(logits: np.ndarray, temperature: float, top_k: int = 0, top_p: float = 1.0) -> np.ndarray:
    """The distribution by its definition: sort, keep the k first, keep the shortest head that reaches top_p."""
    weights = np.exp((logits - logits.max()) / temperature)
    order = np.argsort(-weights, kind="stable")
    if top_k:
        order = order[:top_k]
    share = np.cumsum(weights[order]) / weights[order].sum()
    order = order[: int(np.searchsorted(share, top_p)) + 1]
    result = np.zeros_like(weights)
    result[order] = weights[order] / weights[order].sum()
    return result


def random_logits(rows: int, vocab: int, seed: int = 0, scale: float = 2.0) -> torch.Tensor:
    return scale * torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [
        (1.0, 0, 1.0),
        (0.7, 0, 0.9),
        (1.5, 10, 1.0),
        (0.5, 3, 1.0),
        (1.0, 20, 0.6),
        (2.0, 0, 0.99),
        (1.0, 1, 1.0),
        (1, 0, 1e-9),
    ],
)
def test_draws_follow_the_exact_distribution(temperature, top_k, top_p):
    logits = random_logits(1, 60)
    params = SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p)
    tokens = sample(logits.expand(DRAWS, -1), [params] * DRAWS, [(11, index) for index in range(DRAWS)])
    expected = exact(logits[0].double().numpy(), temperature, top_k, top_p) * DRAWS
    counts = np.bincount(tokens, minlength=60)
    kept = expected > 0
    assert counts[~kept].sum() == 0
    freedom = kept.sum() - 1
    chi_square = ((counts[kept] - expected[kept]) ** 2 / expected[kept]).sum()
    assert chi_square <= freedom + 5 * math.sqrt(2 * freedom)


@pytest.mark.parametrize("vocab", [40, 1000, 3000])
def test_filtered_distributions_of_a_mixed_batch(vocab):
    """Every row under its own parameters, from a nucleus of one token to one that needs the full sort."""
    settings = [
        (1.0, 0, 1.0),
        (0.3, 0, 0.5),
        (2.0, 0, 0.999),
        (1.0, 5, 1.0),
        (1.0, 5, 0.8),
        (1.0, vocab + 7, 0.9),
        (0.01, 0, 0.9),
    ]
    logits = random_logits(len(settings), vocab)
    params = [SamplingParams(temperature=t, top_k=k, top_p=p) for t, k, p in settings]
    weights = probabilities(logits, params)
    actual = weights / weights.sum(dim=-1, keepdim=True)
    expected = np.stack([exact(row.double().numpy(), *one) for row, one in zip(logits, settings, strict=True)])
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-3, atol=1e-6)


def test_tokens_tied_with_the_last_one_kept_are_kept():
    logits = torch.tensor([[1.0, 3.0, 2.0, 2.0, 0.0]])
    for params in (SamplingParams(temperature=1.0, top_p=1.0, top_k=2), SamplingParams(temperature=1.0, top_p=0.7)):
        assert (probabilities(logits, [params])[0] > 0).tolist() == [False, True, True, True, False]


def test_temperature_zero_is_the_argmax():
    logits = random_logits(50, 300)
    params = [SamplingParams(temperature=0, top_p=0.1, top_k=3)] * 50
    assert sample(logits, params, [(0, 0)] * 50) == logits.argmax(dim=-1).tolist()
    assert sample(torch.tensor([[1.0, 5.0, 5.0]]), params[:1], [(0, 0)]) == [1]


def test_tiny_temperatures_are_greedy_and_finite():
    logits = random_logits(4, 300, scale=50.0)
    params = [SamplingParams(temperature=t, top_p=0.9) for t in (1e-4, 1e-12, 1e-38, 1e-45)]
    assert sample(logits, params, [(1, 1)] * 4) == logits.argmax(dim=-1).tolist()


def test_a_row_draws_the_same_whatever_its_batch():
    logits = random_logits(32, 2000)
    params = [
        SamplingParams(
            temperature=0.0 if row % 5 == 0 else 0.2 + row / 20, top_p=(1.0, 0.9, 0.5)[row % 3], top_k=row % 4 * 50
        )
        for row in range(32)
    ]
    draws = [(1000 + row, row) for row in range(32)]
    alone = [sample(logits[row : row + 1], params[row : row + 1], draws[row : row + 1])[0] for row in range(32)]
    assert sample(logits, params, draws) == alone
    shuffled = torch.randperm(32, generator=torch.Generator().manual_seed(0)).tolist()
    mixed = sample(logits[shuffled], [params[row] for row in shuffled], [draws[row] for row in shuffled])
    assert mixed == [alone[row] for row in shuffled]


def test_rows_that_are_not_finite_are_told_apart():
    logits = random_logits(4, 50)
    logits[1, 7] = float("nan")
    logits[2, 7] = float("inf")
    logits[3, :49] = float("-inf")
    for temperature in (0.0, 1.0):
        params = [SamplingParams(temperature=temperature)] * 4
        tokens = sample(logits, params, [(3, row) for row in range(4)])
        assert tokens[1:] == [-1, -1, 49]
        assert tokens[0] == sample(logits[:1], params[:1], [(3, 0)])[0] >= 0


def test_uniform_numbers():
    numbers = np.array([uniform(seed, index) for seed in range(100) for index in range(200)])
    assert 0 <= numbers.min() < 0.001
    assert 0.999 < numbers.max() < 1
    counts = np.bincount((numbers * 50).astype(int), minlength=50)
    expected = len(numbers) / 50
    assert ((counts - expected) ** 2 / expected).sum() < 49 + 5 * math.sqrt(98)
    assert len(np.unique(numbers)) == len(numbers)
    assert uniform(-1, 0) == uniform(2**64 - 1, 0)


def test_the_largest_uniform_number_still_picks_a_token(monkeypatch):
    monkeypatch.setattr("kilonova.engine.sampling.uniform", lambda seed, index: 1 - 2.0**-53)
    logits = torch.tensor([[0.0, 1.0, float("-inf"), float("-inf")]])
    assert sample(logits, [SamplingParams(temperature=1.0, top_p=1.0)], [(0, 0)]) == [1]


def test_logprobs_are_the_unfiltered_log_softmax():
    logits = random_logits(5, 200)
    expected = logits.log_softmax(dim=-1)
    report = logprobs(logits, [3, 0, 199, 8, 8], top=4)
    for row, entry in enumerate(report):
        assert entry.logprob == pytest.approx(expected[row, entry.token_id].item())
        values, indices = expected[row].topk(4)
        assert (entry.top_ids, entry.top_logprobs) == (indices.tolist(), pytest.approx(values.tolist()))
    assert logprobs(logits, [1] * 5, top=0)[0].top_ids == []
    assert len(logprobs(logits[:, :10], [1] * 5, top=20)[0].top_ids) == 10
