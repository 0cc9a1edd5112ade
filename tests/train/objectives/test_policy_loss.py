import math

import pytest
import torch

from kilonova.train.objectives.policy_loss import (
    KLController,
    kl_estimate,
    policy_loss,
    token_weights,
    value_loss,
)

N = 400


def samples(seed: int = 0) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    new, old, advantages = torch.randn(3, N, generator=generator, dtype=torch.float64)
    return new.requires_grad_(), old, advantages


def ppo_clip(new: float, old: float, advantage: float, low: float, high: float, dual: float | None) -> float:
    """Minus the objective of arXiv 1707.06347, equation 7, and of arXiv 1912.09729, equation 5."""
    ratio = math.exp(new - old)
    objective = min(ratio * advantage, min(max(ratio, 1 - low), 1 + high) * advantage)
    if dual is not None and advantage < 0:
        objective = max(objective, dual * advantage)
    return -objective


@pytest.mark.parametrize(("low", "high", "dual"), [(0.2, 0.2, None), (0.1, 0.3, None), (0.2, 0.2, 1.5)])
def test_policy_loss_and_its_gradient(low, high, dual):
    new, old, advantages = samples()
    losses, clipped = policy_loss(new, old, advantages, clip_low=low, clip_high=high, dual_clip=dual)
    losses.sum().backward()
    step = 1e-6
    for index in range(N):
        arguments = (old[index].item(), advantages[index].item(), low, high, dual)
        value = new[index].item()
        assert losses[index].item() == pytest.approx(ppo_clip(value, *arguments), abs=1e-12)
        slope = (ppo_clip(value + step, *arguments) - ppo_clip(value - step, *arguments)) / (2 * step)
        assert new.grad[index].item() == pytest.approx(slope, abs=1e-5)
        assert bool(clipped[index]) == (slope == 0)
    assert 0.05 < clipped.double().mean() < 0.95


def test_a_new_policy_far_from_the_old_one_has_a_finite_loss():
    losses, _ = policy_loss(
        torch.tensor([0.0, -900.0]), torch.tensor([-900.0, 0.0]), torch.tensor([-1.0, 1.0]), clip_low=0.2, clip_high=0.2
    )
    assert losses.isfinite().all()


@pytest.mark.parametrize("clip_range", [None, 0.3])
def test_value_loss_and_its_gradient(clip_range):
    values, old, returns = samples(1)
    losses, clipped = value_loss(values, old, returns, clip_range)
    losses.sum().backward()

    def plain(value: float, before: float, target: float) -> float:
        loss = 0.5 * (value - target) ** 2
        if clip_range is None:
            return loss
        near = min(max(value, before - clip_range), before + clip_range)
        return max(loss, 0.5 * (near - target) ** 2)

    for index in range(N):
        value, arguments = values[index].item(), (old[index].item(), returns[index].item())
        assert losses[index].item() == pytest.approx(plain(value, *arguments), abs=1e-12)
        slope = (plain(value + 1e-6, *arguments) - plain(value - 1e-6, *arguments)) / 2e-6
        assert values.grad[index].item() == pytest.approx(slope, abs=1e-5)
    assert clipped.any() == (clip_range is not None)


def test_kl_estimates_and_their_means():
    generator = torch.Generator().manual_seed(0)
    policy = torch.randn(6, generator=generator, dtype=torch.float64).log_softmax(0)
    reference = torch.randn(6, generator=generator, dtype=torch.float64).log_softmax(0)
    estimates = {name: kl_estimate(policy, reference, name) for name in ("k1", "k2", "k3")}
    for token in range(6):
        ratio = math.exp(reference[token] - policy[token])
        assert estimates["k1"][token].item() == pytest.approx(-math.log(ratio))
        assert estimates["k2"][token].item() == pytest.approx(math.log(ratio) ** 2 / 2)
        assert estimates["k3"][token].item() == pytest.approx(ratio - 1 - math.log(ratio))
    exact = (policy.exp() * (policy - reference)).sum()
    for unbiased in ("k1", "k3"):
        torch.testing.assert_close((policy.exp() * estimates[unbiased]).sum(), exact)
    assert (estimates["k3"] >= 0).all()


def test_token_weights():
    mask = torch.tensor([[0.0, 1, 1, 1, 0], [1, 0, 0, 0, 0]])
    losses = torch.arange(10.0).view(2, 5)
    per_row = [1 + 2 + 3, 5]
    assert (losses * token_weights(mask, "token_mean", 8)).sum() == sum(per_row)
    assert (losses * token_weights(mask, "sequence_mean", 8)).sum() == pytest.approx(6 / 3 + 5)
    assert (losses * token_weights(mask, "constant", 8)).sum() == pytest.approx(sum(per_row) / 8)


def test_the_kl_controller_follows_its_target():
    fixed = KLController(0.1)
    fixed.update(100.0, 64)
    assert fixed.coefficient == 0.1
    adaptive = KLController(0.1, target=6.0, horizon=1000)
    adaptive.update(6.6, 64)
    assert adaptive.coefficient == pytest.approx(0.1 * (1 + 0.1 * 64 / 1000))
    before = adaptive.coefficient
    adaptive.update(60.0, 64)
    assert adaptive.coefficient == pytest.approx(before * (1 + 0.2 * 64 / 1000))
    before = adaptive.coefficient
    adaptive.update(0.0, 64)
    assert adaptive.coefficient == pytest.approx(before * (1 - 0.2 * 64 / 1000))
