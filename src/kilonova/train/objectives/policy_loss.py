"""The losses of proximal policy optimisation, one value a token."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

# Log-ratios are held within this before the exponential, which then cannot overflow; clipping takes over long before.
_MAX_LOG_RATIO = 20.0

KLEstimator = Literal["k1", "k2", "k3"]
Aggregation = Literal["token_mean", "sequence_mean", "constant"]


def policy_loss(
    log_probs: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    *,
    clip_low: float,
    clip_high: float,
    dual_clip: float | None = None,
) -> tuple[Tensor, Tensor]:
    """The clipped surrogate objective (arXiv 1707.06347, equation 7), negated, and where clipping decided it.

    The ratio of new to old probability counts from `1 - clip_low` to `1 + clip_high` only. `dual_clip`, above 1, bounds
    what a ratio far above 1 can cost under a negative advantage (arXiv 1912.09729, equation 5).
    """
    ratio = _ratio(log_probs - old_log_probs)
    unclipped = -advantages * ratio
    clipped = -advantages * ratio.clamp(1 - clip_low, 1 + clip_high)
    loss = torch.maximum(unclipped, clipped)
    decided = clipped > unclipped
    if dual_clip is not None:
        bound = -advantages * dual_clip
        negative = advantages < 0
        decided = decided | (negative & (bound < loss))
        loss = torch.where(negative, torch.minimum(loss, bound), loss)
    return loss, decided


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, clip_range: float | None) -> tuple[Tensor, Tensor]:
    """Half the squared error of the values, and where clipping decided it.

    With a `clip_range` the larger of that and of the error with values held within it of the old ones.
    """
    error = (values - returns).square()
    if clip_range is None:
        return 0.5 * error, torch.zeros_like(error, dtype=torch.bool)
    near = old_values + (values - old_values).clamp(-clip_range, clip_range)
    clipped = (near - returns).square()
    return 0.5 * torch.maximum(error, clipped), clipped > error


def kl_estimate(log_probs: Tensor, reference_log_probs: Tensor, estimator: KLEstimator) -> Tensor:
    """An estimate of the KL divergence from the reference, from tokens drawn by the policy.

    `k1` is unbiased and may be negative, `k2` is half its square, `k3` is unbiased and never negative (Schulman,
    "Approximating KL divergence", 2020).
    """
    difference = log_probs - reference_log_probs
    if estimator == "k1":
        return difference
    if estimator == "k2":
        return 0.5 * difference.square()
    return _ratio(-difference) - 1 + difference


def token_weights(mask: Tensor, aggregation: Aggregation, max_length: int) -> Tensor:
    """What each token of `mask` `[N, T]` counts for in the sum of a loss.

    The sum is to be divided by the tokens under `token_mean`, else by the completions: `sequence_mean` averages the
    tokens of each completion first, `constant` divides their sum by `max_length` (arXiv 2503.20783).
    """
    if aggregation == "token_mean":
        return mask
    if aggregation == "sequence_mean":
        return mask / mask.sum(dim=1, keepdim=True).clamp_min(1)
    return mask / max_length


class KLController:
    """The weight of the KL penalty: fixed, or steered to a target (arXiv 1909.08593, section 2.2).

    With a `target` in nats a completion, each update scales the weight by `1 + error * completions / horizon`, where
    the relative error of the measured divergence is held within 0.2.
    """

    def __init__(self, coefficient: float, target: float | None = None, horizon: int = 10_000) -> None:
        self.coefficient = coefficient
        self._target = target
        self._horizon = horizon

    def update(self, divergence: float, completions: int) -> None:
        """Take in the mean divergence of a rollout's completions."""
        if self._target is None:
            return
        error = min(max(divergence / self._target - 1, -0.2), 0.2)
        self.coefficient *= 1 + error * completions / self._horizon


def _ratio(log_ratio: Tensor) -> Tensor:
    return log_ratio.clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO).exp()
