"""The law by which loss falls with parameters and tokens."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import huber_loss

from kilonova.core.errors import DataError

_HUBER_DELTA = 1e-3
# Starting points, combined with each other: ln E, ln A, alpha, ln B, beta.
_GRID = ((-1.0, 0.0, 1.0), (2.0, 6.0, 10.0), (0.2, 0.5), (2.0, 6.0, 10.0), (0.2, 0.5))
_LBFGS_STEPS = 200


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
    starts = torch.tensor(list(itertools.product(*_GRID)), dtype=torch.float64)
    errors, coefficients = _minimise(starts, points)
    best = coefficients[int(errors.argmin())]
    log_e, log_a, alpha, log_b, beta = best.tolist()
    return ScalingLaw(float(np.exp(log_e)), float(np.exp(log_a)), alpha, float(np.exp(log_b)), beta)


def bootstrap_scaling_laws(points: Sequence[Point], law: ScalingLaw, samples: int, seed: int = 0) -> list[ScalingLaw]:
    """Laws fitted to resampled runs, each search started from `law`: their spread is the law's uncertainty."""
    generator = np.random.default_rng(seed)
    start = torch.tensor(
        [[np.log(law.irreducible), np.log(law.parameter_scale), law.alpha, np.log(law.token_scale), law.beta]],
        dtype=torch.float64,
    )
    laws: list[ScalingLaw] = []
    while len(laws) < samples:
        chosen = [points[index] for index in generator.integers(0, len(points), len(points))]
        if len({p.parameters for p in chosen}) < 2 or len({p.tokens for p in chosen}) < 2:
            continue
        log_e, log_a, alpha, log_b, beta = _minimise(start, chosen)[1][0].tolist()
        laws.append(ScalingLaw(float(np.exp(log_e)), float(np.exp(log_a)), alpha, float(np.exp(log_b)), beta))
    return laws


def _minimise(starts: Tensor, points: Sequence[Point]) -> tuple[Tensor, Tensor]:
    """Errors `[S]` and coefficients `[S, 5]` that a search from each of `starts` `[S, 5]` ends with."""
    log_n = torch.tensor([p.parameters for p in points], dtype=torch.float64).log()
    log_d = torch.tensor([p.tokens for p in points], dtype=torch.float64).log()
    log_loss = torch.tensor([p.loss for p in points], dtype=torch.float64).log()
    errors, found = [], []
    for start in starts:
        coefficients = start.clone().requires_grad_()
        search = torch.optim.LBFGS([coefficients], max_iter=_LBFGS_STEPS, line_search_fn="strong_wolfe")

        def error(coefficients: Tensor = coefficients) -> Tensor:
            log_e, log_a, alpha, log_b, beta = coefficients
            terms = torch.stack((log_a - alpha * log_n, log_b - beta * log_d, log_e.expand_as(log_n)))
            return huber_loss(terms.logsumexp(0), log_loss, delta=_HUBER_DELTA, reduction="sum")

        def closure(search: torch.optim.LBFGS = search) -> Tensor:
            search.zero_grad()
            value = error()
            value.backward()
            return value

        search.step(closure)
        final = error().detach()
        errors.append(torch.where(final.isfinite(), final, torch.inf))
        found.append(coefficients.detach())
    return torch.stack(errors), torch.stack(found)
