"""Samplers on flows whose solutions are known in closed form."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from kilonova.core.errors import ConfigError
from kilonova.studio.samplers import SamplerName, initial_noise, sample, sampling_timesteps

MEAN, STD = 0.7, 0.3
CENTRES = torch.tensor([[-2.0, 0.0], [1.0, 1.5], [1.5, -1.5]], dtype=torch.float64)
WEIGHTS = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
SPREAD = 0.25


def gaussian_velocity(latents: Tensor, timestep: float, next_timestep: float) -> Tensor:
    """E[noise - data | x_t] for data from N(MEAN, STD^2): both are linear in x_t."""
    variance = (1 - timestep) ** 2 * STD**2 + timestep**2
    standard = (latents - (1 - timestep) * MEAN) / variance
    return timestep * standard - (MEAN + (1 - timestep) * STD**2 * standard)


def mixture_velocity(latents: Tensor, timestep: float, next_timestep: float) -> Tensor:
    """The same for a mixture of Gaussians around CENTRES, `latents` being `[B, 2]`."""
    kept = 1 - timestep
    variance = kept**2 * SPREAD**2 + timestep**2
    offsets = latents[:, None] - kept * CENTRES
    logits = WEIGHTS.log() - offsets.square().sum(-1) / (2 * variance)
    shares = logits.softmax(1)[..., None]
    data = (shares * (CENTRES + kept * SPREAD**2 / variance * offsets)).sum(1)
    # x_t = (1 - t) data + t noise gives the noise, which is wanted at time 1 too.
    noise = (shares * (timestep / variance * offsets)).sum(1)
    return noise - data


def _error(sampler: SamplerName, timesteps: list[float]) -> float:
    def at(timestep: float) -> Tensor:
        """The exact flow keeps how many standard deviations a sample is from the mean."""
        variance = (1 - timestep) ** 2 * STD**2 + timestep**2
        return (1 - timestep) * MEAN + math.sqrt(variance) * torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]

    found = sample(gaussian_velocity, at(timesteps[0]), timesteps, sampler)
    return float((found - at(timesteps[-1])).abs().max())


@pytest.mark.parametrize(("sampler", "order"), [("euler", 1), ("heun", 2), ("dpm++2m", 2)])
def test_errors_fall_at_the_rate_of_the_rule(sampler: SamplerName, order: int) -> None:
    # Away from both ends, where the logarithm of the signal-to-noise ratio is finite.
    coarse, fine = (_error(sampler, [0.9 - 0.8 * step / count for step in range(count + 1)]) for count in (32, 128))
    assert coarse < 0.05
    assert math.log(coarse / fine, 4) == pytest.approx(order, abs=0.35)


def test_better_rules_need_fewer_steps() -> None:
    timesteps = sampling_timesteps(16)
    assert _error("dpm++2m", timesteps) < 0.5 * _error("euler", timesteps)
    assert _error("heun", timesteps) < 0.5 * _error("euler", timesteps)


@pytest.mark.parametrize("sampler", ["euler", "heun", "dpm++2m", "ancestral"])
def test_a_gaussian_mixture_is_recovered(sampler: SamplerName) -> None:
    count = 4000
    generators = [torch.Generator().manual_seed(seed) for seed in range(count)]
    noise = initial_noise((2,), generators).double()
    steps = 200 if sampler == "ancestral" else 60
    found = sample(mixture_velocity, noise, sampling_timesteps(steps), sampler, generators=generators)
    nearest = (found[:, None] - CENTRES).square().sum(-1).argmin(1)
    for index, weight in enumerate(WEIGHTS.tolist()):
        part = found[nearest == index]
        # Four standard errors.
        assert len(part) / count == pytest.approx(weight, abs=4 * math.sqrt(weight * (1 - weight) / count))
        error = 4 * SPREAD / math.sqrt(len(part))
        assert (part.mean(0) - CENTRES[index]).abs().max() < error + 0.01
        torch.testing.assert_close(part.std(0), torch.full((2,), SPREAD, dtype=torch.float64), rtol=0.12, atol=0)


def test_samples_do_not_depend_on_their_batch() -> None:
    def run(seeds: list[int]) -> Tensor:
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        noise = initial_noise((2,), generators).double()
        return sample(mixture_velocity, noise, sampling_timesteps(10), "ancestral", generators=generators)

    together = run([5, 6, 7])
    for index, seed in enumerate((5, 6, 7)):
        assert torch.equal(run([seed])[0], together[index])


def test_timesteps_fall_from_noise_to_data() -> None:
    assert sampling_timesteps(4) == [1.0, 0.75, 0.5, 0.25, 0.0]
    shifted = sampling_timesteps(4, shift=3.0)
    assert (shifted[0], shifted[2], shifted[-1]) == (1.0, 0.75, 0.0)
    assert shifted == sorted(shifted, reverse=True)


def test_every_step_is_told_and_none_asks_the_model_at_time_0() -> None:
    for sampler in ("euler", "heun", "dpm++2m", "ancestral"):
        asked: list[float] = []
        done: list[int] = []

        def model(latents: Tensor, timestep: float, next_timestep: float, asked: list[float] = asked) -> Tensor:
            asked.append(timestep)
            return gaussian_velocity(latents, timestep, next_timestep)

        generators = [torch.Generator().manual_seed(0)]
        noise = initial_noise((1,), generators)
        sample(
            model,
            noise,
            sampling_timesteps(3),
            sampler,
            generators=generators,
            on_step=lambda step, latents, done=done: done.append(step),
        )
        assert done == [1, 2, 3]
        assert min(asked) > 0
        assert len(asked) == (5 if sampler == "heun" else 3)


def test_wrong_choices_are_named() -> None:
    with pytest.raises(ConfigError, match="num_inference_steps"):
        sampling_timesteps(0)
    noise = torch.zeros(2, 1)
    with pytest.raises(ConfigError, match=r"sampler: 'ddim'.*euler"):
        sample(gaussian_velocity, noise, [1.0, 0.0], "ddim")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="generators: 0 for 2"):
        sample(gaussian_velocity, noise, [1.0, 0.0], "ancestral")
