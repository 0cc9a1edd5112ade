import math
import statistics

import pytest
import torch

from kilonova.train.objectives.advantages import explained_variance, generalized_advantages, group_advantages, whiten


def ragged_rows(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rewards and values over completions of several lengths at several places, noise outside the mask."""
    generator = torch.Generator().manual_seed(seed)
    rewards, values = torch.randn(2, 5, 12, generator=generator, dtype=torch.float64)
    mask = torch.zeros(5, 12, dtype=torch.float64)
    for row, (start, end) in enumerate([(0, 12), (3, 9), (5, 6), (2, 4), (10, 12)]):
        mask[row, start:end] = 1
    return rewards, values, mask


@pytest.mark.parametrize(("gamma", "gae_lambda"), [(1.0, 0.95), (0.9, 0.5), (0.99, 1.0), (1.0, 0.0)])
def test_generalized_advantages_are_the_sums_of_the_paper(gamma, gae_lambda):
    rewards, values, mask = ragged_rows()
    advantages, returns = generalized_advantages(rewards * mask, values, mask, gamma=gamma, gae_lambda=gae_lambda)
    for row in range(len(mask)):
        at = mask[row].nonzero()[:, 0].tolist()
        r, v = rewards[row, at].tolist(), [*values[row, at].tolist(), 0.0]
        deltas = [r[t] + gamma * v[t + 1] - v[t] for t in range(len(r))]
        expected = [
            math.fsum((gamma * gae_lambda) ** (later - t) * deltas[later] for later in range(t, len(r)))
            for t in range(len(r))
        ]
        assert advantages[row, at].tolist() == pytest.approx(expected, abs=1e-12)
        assert returns[row, at].tolist() == pytest.approx([a + b for a, b in zip(expected, v, strict=False)], abs=1e-12)
    assert not advantages[mask == 0].any()
    assert not returns[mask == 0].any()


def test_monte_carlo_returns_at_lambda_one():
    rewards, values, mask = ragged_rows(1)
    _, returns = generalized_advantages(rewards * mask, values, mask, gamma=1.0, gae_lambda=1.0)
    for row in range(len(mask)):
        at = mask[row].nonzero()[:, 0]
        torch.testing.assert_close(returns[row, at], rewards[row, at].flip(0).cumsum(0).flip(0))


def test_whitened_values_have_mean_zero_and_variance_one():
    values, _, mask = ragged_rows(2)
    selected = values[mask > 0].tolist()
    mean, deviation = statistics.fmean(selected), statistics.stdev(selected)
    whitened = whiten(values, mask)
    assert whitened[mask > 0].tolist() == pytest.approx([(value - mean) / deviation for value in selected], abs=1e-6)
    assert not whitened[mask == 0].any()
    one = torch.tensor([[0.0, 1.0]])
    assert whiten(torch.tensor([[3.0, 2.0]]), one).tolist() == [[0.0, 2.0]]


def test_group_advantages():
    rewards = [1.0, 0.0, 0.5, 0.25, 2.0, 2.0, 2.0, 2.0]
    expected = {"grpo": [], "dr_grpo": [], "rloo": []}
    for group in (rewards[:4], rewards[4:]):
        mean, deviation = statistics.fmean(group), statistics.stdev(group)
        for index, reward in enumerate(group):
            others = group[:index] + group[index + 1 :]
            expected["grpo"].append((reward - mean) / (deviation + 1e-4))
            expected["dr_grpo"].append(reward - mean)
            expected["rloo"].append(reward - statistics.fmean(others))
    for baseline, values in expected.items():
        found = group_advantages(torch.tensor(rewards, dtype=torch.float64), 4, baseline)
        assert found.tolist() == pytest.approx(values, abs=1e-12)


def test_explained_variance():
    returns, noise, mask = ragged_rows(3)
    assert float(explained_variance(returns, returns, mask)) == 1
    assert float(explained_variance(torch.zeros_like(returns), returns, mask)) == pytest.approx(0)
    targets, errors = returns[mask > 0].tolist(), (0.3 * noise)[mask > 0].tolist()
    expected = 1 - statistics.pvariance(errors) / statistics.pvariance(targets)
    assert float(explained_variance(returns + 0.3 * noise, returns, mask)) == pytest.approx(expected)
    assert float(explained_variance(returns, torch.ones_like(returns), mask)) == 0
