"""Distances of features and intervals against plain formulas."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import sqrtm

from kilonova.core.errors import DataError
from kilonova.evals.canvas.statistics import bootstrap_median, distance_estimate, frechet_distance


def plain_distance(first: np.ndarray, second: np.ndarray) -> float:
    """As it is written, with SciPy's root of the product."""
    one, other = np.cov(first.T), np.cov(second.T)
    root = sqrtm(one @ other)
    return float(((first.mean(0) - second.mean(0)) ** 2).sum() + np.trace(one + other - 2 * root.real))


def test_the_distance_is_that_of_the_plain_formula() -> None:
    generator = np.random.default_rng(0)
    first = generator.normal(size=(200, 12)) @ generator.normal(size=(12, 12))
    second = generator.normal(size=(150, 12)) * 2 + 1
    assert frechet_distance(first, second) == pytest.approx(plain_distance(first, second), rel=1e-8)
    # Fewer rows than features, as of few pictures: features that vary in no row add nothing.
    few = [np.pad(rows[:40], ((0, 0), (0, 60))) for rows in (first, second)]
    assert frechet_distance(*few) == pytest.approx(plain_distance(first[:40], second[:40]), rel=1e-8)
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-5)
    assert frechet_distance(first, first + 3) == pytest.approx(9 * 12, rel=1e-6)
    with pytest.raises(DataError, match="two pictures"):
        frechet_distance(first[:1], second)


def test_the_interval_of_a_distance_holds_the_true_one() -> None:
    """Bootstrap rows repeat, which adds to a distance; the interval is without that."""
    generator = np.random.default_rng(1)
    found = distance_estimate(generator.normal(size=(300, 4)), generator.normal(size=(300, 4)) + 1, seed=0)
    assert found.low < found.value < found.high
    assert found.low < 4 < found.high
    assert found.high - found.low < 2


def test_the_median_is_over_all_values_and_its_interval_over_groups() -> None:
    generator = np.random.default_rng(2)
    groups = [generator.normal(size=generator.integers(1, 5)).tolist() for _ in range(80)]
    found = bootstrap_median(groups, seed=0)
    assert found.value == np.median([value for group in groups for value in group])
    assert found.low < found.value < found.high
    assert -0.5 < found.low < found.high < 0.5
    assert bootstrap_median(groups, seed=0) == found
    same = bootstrap_median([[2.0, 2.0], [2.0]], seed=0)
    assert (same.low, same.high) == (2, 2)
