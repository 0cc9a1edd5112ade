"""The straight path, its time distribution and its targets, against plain formulas."""

from __future__ import annotations

import math

import pytest
import torch

from kilonova.studio.flow import (
    interpolate,
    resolution_shift,
    sample_timesteps,
    shift_timestep,
    shortcut_target,
    to_data,
    to_velocity,
)


def _pair() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    data = torch.randn(4, 3, 5, 5, generator=generator, dtype=torch.float64)
    noise = torch.randn(4, 3, 5, 5, generator=generator, dtype=torch.float64)
    return data, noise, torch.tensor([0.0, 0.25, 0.8, 1.0], dtype=torch.float64)


def test_the_path_goes_from_data_to_noise_at_its_velocity() -> None:
    data, noise, t = _pair()
    noisy = interpolate(data, noise, t)
    for index, time in enumerate(t.tolist()):
        torch.testing.assert_close(noisy[index], (1 - time) * data[index] + time * noise[index])
    torch.testing.assert_close(interpolate(data, noise, t + 1e-6) - noisy, 1e-6 * (noise - data), rtol=1e-6, atol=1e-12)


def test_both_predictions_stand_for_one_velocity() -> None:
    data, noise, t = _pair()
    noisy = interpolate(data, noise, t)
    velocity = noise - data
    torch.testing.assert_close(to_data(velocity, noisy, t), data)
    assert to_velocity(velocity, "v", noisy, t) is velocity
    torch.testing.assert_close(to_velocity(data, "x", noisy, t)[1:], velocity[1:])
    # At time 0, where x - x says nothing, it is bounded.
    assert torch.isfinite(to_velocity(data + 1, "x", noisy, t)).all()


def test_a_shift_moves_times_as_the_paper_says() -> None:
    t = torch.tensor([0.0, 0.5, 1.0])
    torch.testing.assert_close(shift_timestep(t, 3.0), torch.tensor([0.0, 0.75, 1.0]))
    # Equation 20: the noise on the mean of n pixels at t falls with sqrt(n).
    shift = resolution_shift(256, 64)
    moved = float(shift_timestep(torch.tensor(0.3), shift))
    assert moved / (1 - moved) / math.sqrt(256) == pytest.approx(0.3 / 0.7 / math.sqrt(64))


@pytest.mark.parametrize(("mean", "std", "shift"), [(0.0, 1.0, 1.0), (-0.5, 0.8, 2.0)])
def test_training_times_follow_the_shifted_logit_normal(mean: float, std: float, shift: float) -> None:
    times = sample_timesteps(20_000, torch.Generator().manual_seed(0), mean=mean, std=std, shift=shift).double()
    assert ((times > 0) & (times < 1)).all()
    # Undo the shift and the sigmoid: a normal distribution must be left.
    unshifted = times / (shift - (shift - 1) * times)
    normal = (torch.logit(unshifted) - mean) / std
    ordered = normal.sort().values
    quantiles = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    empirical_gap = (torch.special.ndtr(ordered) - quantiles).abs().max()
    assert empirical_gap < 1e-3


def test_training_times_are_repeatable_and_in_random_order() -> None:
    first, again, other = (sample_timesteps(64, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, first.sort().values)


def test_the_shortcut_target_is_the_mean_of_two_steps() -> None:
    data, noise, _ = _pair()
    t = torch.tensor([0.5, 0.5, 1.0, 0.25], dtype=torch.float64)
    size = torch.tensor([0.25, 0.125, 0.5, 0.125], dtype=torch.float64)
    noisy = interpolate(data, noise, t)

    def velocity(x: torch.Tensor, at: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
        return torch.sin(x) * (1 + at.view(-1, 1, 1, 1)) + step.view(-1, 1, 1, 1)

    target = shortcut_target(velocity, noisy, t, size)
    d = size.view(-1, 1, 1, 1)
    one = noisy - d * velocity(noisy, t, size)
    two = one - d * velocity(one, t - size, size)
    torch.testing.assert_close(noisy - 2 * d * target, two)
