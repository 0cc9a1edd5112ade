import numpy as np
import pytest

from kilonova.core.errors import DataError
from kilonova.train.scaling.fit import Point, ScalingLaw, bootstrap_scaling_laws, fit_scaling_law

TRUE = ScalingLaw(1.7, 400.0, 0.34, 410.0, 0.28)


def ladder(noise: float) -> list[Point]:
    generator = np.random.default_rng(0)
    return [
        Point(f"{n}-{d}", n, d, 6 * n * d, TRUE.loss(n, d) * float(np.exp(noise * generator.standard_normal())))
        for n in (1e5, 3e5, 1e6, 3e6, 1e7)
        for d in (1e6, 4e6, 1.6e7, 6.4e7)
    ]


def test_recovers_the_law_that_made_the_losses() -> None:
    law = fit_scaling_law(ladder(0.0))
    assert law.alpha == pytest.approx(TRUE.alpha, rel=0.02)
    assert law.beta == pytest.approx(TRUE.beta, rel=0.02)
    assert law.irreducible == pytest.approx(TRUE.irreducible, rel=0.05)


def test_predicts_a_larger_run_from_noisy_ones() -> None:
    points = ladder(0.003)
    law = fit_scaling_law(points)
    assert law.loss(1e8, 1e9) == pytest.approx(TRUE.loss(1e8, 1e9), rel=0.03)
    laws = bootstrap_scaling_laws(points, law, samples=20)
    assert min(one.alpha for one in laws) < law.alpha < max(one.alpha for one in laws)


def test_the_optimum_is_where_neither_more_parameters_nor_more_tokens_help() -> None:
    flops = 1e18
    parameters, tokens = TRUE.optimal(flops)
    assert 6 * parameters * tokens == pytest.approx(flops)
    best = TRUE.loss(parameters, tokens)
    for factor in (0.5, 0.9, 1.1, 2.0):
        assert TRUE.loss(parameters * factor, tokens / factor) > best


def test_too_few_runs_are_refused() -> None:
    with pytest.raises(DataError, match="at least 5 runs"):
        fit_scaling_law(ladder(0.0)[:4])
