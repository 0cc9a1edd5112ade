"""Guidance against the papers' formulas in float64."""

from __future__ import annotations

import pytest
import torch

from kilonova.core.errors import ConfigError
from kilonova.studio.guidance import Guidance


def _velocities() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (3, 4, 6, 6)
    return tuple(torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))  # type: ignore[return-value]


def test_guidance_extrapolates_from_the_unconditional() -> None:
    conditional, unconditional = _velocities()
    guided = Guidance(cfg_scale=4.0).combine(conditional, unconditional)
    torch.testing.assert_close(guided, 4 * conditional - 3 * unconditional)
    torch.testing.assert_close(Guidance().combine(conditional, unconditional), conditional)


def test_rescaling_gives_back_the_contrast_of_each_sample() -> None:
    conditional, unconditional = _velocities()
    plain = Guidance(cfg_scale=5.0).combine(conditional, unconditional)
    whole = Guidance(cfg_scale=5.0, rescale=1.0).combine(conditional, unconditional)
    half = Guidance(cfg_scale=5.0, rescale=0.5).combine(conditional, unconditional)
    for index in range(3):
        factor = conditional[index].std() / plain[index].std()
        torch.testing.assert_close(whole[index], plain[index] * factor)
    torch.testing.assert_close(half, (plain + whole) / 2)


def test_it_is_given_only_inside_its_interval() -> None:
    guidance = Guidance(cfg_scale=3.0, start=0.2, end=0.9)
    assert [guidance.is_active(t) for t in (0.0, 0.19, 0.2, 0.9, 0.91, 1.0)] == [False, False, True, True, False, False]
    assert Guidance(cfg_scale=3.0).is_active(0.0)
    assert Guidance(cfg_scale=3.0).is_active(1.0)
    assert not Guidance().is_active(0.5)


@pytest.mark.parametrize("wrong", [{"cfg_scale": 0.5}, {"start": 0.6, "end": 0.5}, {"rescale": 1.5}])
def test_impossible_values_are_named(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Guidance(**wrong)
