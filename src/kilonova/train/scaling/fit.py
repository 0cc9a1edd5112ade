"""The law by which loss falls with parameters and tokens."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kilonova.core.errors import ConfigError, DataError

_HUBER_DELTA = 1e-3
# Starting points, combined with each other: ln E, ln A, alpha, ln B, beta.
_GRID = ((-1.0, 0.0, 1.0), (2.0, 6.0, 10.0), (0.2, 0.5), (2.0, 6.0, 10.0), (0.2, 0.5))
# Where a search stays: few runs leave some coefficients open.
_BOUNDS = ((-10.0, 10.0), (-10.0, 60.0), (0.0, 3.0), (-10.0, 60.0), (0.0, 3.0))
_LBFGS_STEPS = 1000


@dataclass(frozen=True)
class Point:
    """One trained model: the loss in nats a token after `tokens` with `parameters` and `flops`."""

    name: str
    parameters: float
    tokens: float
    flops: float
    loss: float


@dataclass(frozen=True)
class ScalingLaw:
    """`L(N, D) = E + A / N ** alpha + B / D ** beta` (arXiv 2203.15556, equation 2)."""

    irreducible: float
    parameter_scale: float
    alpha: float
    token_scale: float
    beta: float

    def loss(self, parameters: float, tokens: float) -> float:
        """Predicted loss in nats a token."""
        return self.irreducible + self.parameter_scale / parameters**self.alpha + self.token_scale / tokens**self.beta

    def optimal(self, flops: float) -> tuple[float, float]:
        """Parameters and tokens of least loss for a compute budget, with `flops = 6 * N * D` (equation 4)."""
        ratio = (self.alpha * self.parameter_scale / (self.beta * self.token_scale)) ** (1 / (self.alpha + self.beta))
        parameters = ratio * (flops / 6) ** (self.beta / (self.alpha + self.beta))
        return parameters, flops / 6 / parameters


def fit_scaling_law(points: Sequence[Point]) -> ScalingLaw:
    """The law with least Huber error of the logarithm of loss, over a grid of starts (arXiv 2203.15556, appendix D.3).

    Raises DataError with fewer points than the law has coefficients, or with a single size or token count.
    """
    if len(points) < 5 or len({p.parameters for p in points}) < 2 or len({p.tokens for p in points}) < 2:
        raise DataError("a scaling law needs at least 5 runs, of 2 sizes and 2 token counts")
    starts = np.array(list(itertools.product(*_GRID)))
    errors, coefficients = _minimise(starts, points)
    best = coefficients[int(errors.argmin())]
    log_e, log_a, alpha, log_b, beta = best.tolist()
    return ScalingLaw(float(np.exp(log_e)), float(np.exp(log_a)), alpha, float(np.exp(log_b)), beta)


def bootstrap_scaling_laws(points: Sequence[Point], law: ScalingLaw, samples: int, seed: int = 0) -> list[ScalingLaw]:
    """Laws fitted to resampled runs, each search started from `law`: their spread is the law's uncertainty."""
    generator = np.random.default_rng(seed)
    start = np.array(
        [[np.log(law.irreducible), np.log(law.parameter_scale), law.alpha, np.log(law.token_scale), law.beta]]
    )
    laws: list[ScalingLaw] = []
    while len(laws) < samples:
        chosen = [points[index] for index in generator.integers(0, len(points), len(points))]
        if len({p.parameters for p in chosen}) < 2 or len({p.tokens for p in chosen}) < 2:
            continue
        log_e, log_a, alpha, log_b, beta = _minimise(start, chosen)[1][0].tolist()
        laws.append(ScalingLaw(float(np.exp(log_e)), float(np.exp(log_a)), alpha, float(np.exp(log_b)), beta))
    return laws


def _minimise(starts: np.ndarray, points: Sequence[Point]) -> tuple[np.ndarray, np.ndarray]:
    """Errors `[S]` and coefficients `[S, 5]` that a search from each of `starts` `[S, 5]` ends with."""
    try:
        from scipy.optimize import minimize
    except ImportError as missing:
        raise ConfigError("scipy must be installed first: pip install 'kilonova[data]'") from missing
    log_n, log_d, log_loss = np.log([(p.parameters, p.tokens, p.loss) for p in points]).T
    options = {"maxiter": _LBFGS_STEPS, "ftol": 1e-14, "gtol": 1e-10}

    def error(coefficients: np.ndarray) -> tuple[float, np.ndarray]:
        """Huber's error, in units of its delta, and its gradient."""
        log_e, log_a, alpha, log_b, beta = coefficients
        terms = np.stack((log_a - alpha * log_n, log_b - beta * log_d, np.full_like(log_n, log_e)))
        largest = terms.max(0)
        shares = np.exp(terms - largest)
        total = shares.sum(0)
        shares /= total
        residual = (largest + np.log(total) - log_loss) / _HUBER_DELTA
        size = np.abs(residual)
        value = np.where(size < 1, residual**2 / 2, size - 0.5).sum()
        slope = np.clip(residual, -1, 1) / _HUBER_DELTA
        by_a, by_b, by_e = shares * slope
        return value, np.array([by_e.sum(), by_a.sum(), -(by_a @ log_n), by_b.sum(), -(by_b @ log_d)])

    with np.errstate(over="ignore", invalid="ignore"):
        searches = [
            minimize(error, start, jac=True, method="L-BFGS-B", bounds=_BOUNDS, options=options) for start in starts
        ]
    errors = np.array([search.fun for search in searches])
    return np.where(np.isfinite(errors), errors, np.inf), np.array([search.x for search in searches])
