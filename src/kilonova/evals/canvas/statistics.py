"""Numbers about sets of pictures: intervals of any statistic, and how far two sets of features lie apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from kilonova.core.errors import DataError
from kilonova.evals.metrics import RESAMPLES, Estimate

_DISTANCE_RESAMPLES = 200


def bootstrap_median(groups: Sequence[Sequence[float]], seed: int) -> Estimate:
    """The median of all values with a percentile bootstrap interval over the groups, such as pictures."""
    arrays = [np.asarray(group, np.float64) for group in groups]
    if not sum(map(len, arrays)):
        raise DataError("a median of no values")
    generator = np.random.default_rng(seed)
    medians = []
    for _ in range(RESAMPLES):
        values = np.concatenate([arrays[index] for index in generator.integers(len(arrays), size=len(arrays))])
        medians.append(np.median(values) if len(values) else np.nan)
    low, high = np.nanquantile(medians, (0.025, 0.975))
    return Estimate(float(np.median(np.concatenate(arrays))), float(low), float(high))


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """The squared Frechet distance of normal distributions fitted to features `[N, D]` and `[M, D]`.

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) with sample covariances (Dowson and Landau 1982; arXiv 1706.08500,
    equation 6). The trace of the root is that of (C1^(1/2) C2 C1^(1/2))^(1/2), which is exact for covariances of less
    than full rank too, as of fewer pictures than features. The distance grows as N and M shrink: compare only those of
    equally many. DataError for fewer than two rows.
    """
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if min(len(first), len(second)) < 2:
        raise DataError("a distance of features needs two pictures on each side")
    means = first.mean(0) - second.mean(0)
    one, other = np.atleast_2d(np.cov(first, rowvar=False)), np.atleast_2d(np.cov(second, rowvar=False))
    values, vectors = np.linalg.eigh(one)
    root = vectors * np.sqrt(values.clip(min=0)) @ vectors.T
    shared = np.sqrt(np.linalg.eigvalsh(root @ other @ root).clip(min=0)).sum()
    return float(means @ means + np.trace(one) + np.trace(other) - 2 * shared)


def distance_estimate(
    first: np.ndarray,
    second: np.ndarray,
    seed: int,
    distance: Callable[[np.ndarray, np.ndarray], float] = frechet_distance,
) -> Estimate:
    """A distance of features with a basic bootstrap interval, which takes off the bias of drawing some rows twice."""
    value = distance(first, second)
    generator = np.random.default_rng(seed)
    found = [
        distance(*(rows[generator.integers(len(rows), size=len(rows))] for rows in (first, second)))
        for _ in range(_DISTANCE_RESAMPLES)
    ]
    low, high = np.quantile(found, (0.025, 0.975))
    return Estimate(value, max(0.0, float(2 * value - high)), max(0.0, float(2 * value - low)))
