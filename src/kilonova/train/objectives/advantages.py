"""How much better a token or a completion was than expected. Tensors are `[N, T]`, with a 0/1 `mask` of the same shape
that marks the completion's tokens, unless said otherwise."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

# Added to a group's standard deviation, as in TRL: groups whose rewards are all alike get no advantage.
_GROUP_EPSILON = 1e-4

GroupBaseline = Literal["grpo", "dr_grpo", "rloo"]


def generalized_advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float, gae_lambda: float
) -> tuple[Tensor, Tensor]:
    """Advantages and returns by generalised advantage estimation (arXiv 1506.02438, equation 16).

    `values` holds the value of the state in which each token was chosen; the state after a completion's last token is
    worth 0. Both results are 0 outside the mask. Returns are advantages plus values.
    """
    advantages = torch.zeros_like(rewards)
    next_value = next_advantage = torch.zeros_like(rewards[:, 0])
    for at in reversed(range(rewards.shape[1])):
        inside = mask[:, at]
        delta = rewards[:, at] + gamma * next_value - values[:, at]
        advantage = delta + gamma * gae_lambda * next_advantage
        # Positions outside pass on what comes after them, so that a mask may have holes.
        next_value = torch.where(inside > 0, values[:, at], next_value)
        next_advantage = torch.where(inside > 0, advantage, next_advantage)
        advantages[:, at] = advantage * inside
    return advantages, (advantages + values) * mask


def whiten(values: Tensor, mask: Tensor) -> Tensor:
    """`values` with mean 0 and (unbiased) variance 1 over the mask, 0 outside; unchanged where one value is left."""
    count = mask.sum()
    if count < 2:
        return values * mask
    mean = (values * mask).sum() / count
    variance = ((values - mean).square() * mask).sum() / (count - 1)
    return (values - mean) * torch.rsqrt(variance + 1e-8) * mask


def group_advantages(rewards: Tensor, group_size: int, baseline: GroupBaseline) -> Tensor:
    """Advantages `[N]` of completions whose `rewards` `[N]` come in groups of `group_size` answers to one prompt.

    `grpo`: less the group's mean, over its standard deviation (arXiv 2402.03300, section 4.1.2); `dr_grpo`: less the
    mean only (arXiv 2503.20783); `rloo`: less the mean of the others (arXiv 2402.14740, equation 8).
    """
    grouped = rewards.view(-1, group_size)
    centred = grouped - grouped.mean(dim=1, keepdim=True)
    if baseline == "grpo":
        centred = centred / (grouped.std(dim=1, keepdim=True) + _GROUP_EPSILON)
    elif baseline == "rloo":
        centred = centred * (group_size / (group_size - 1))
    return centred.flatten()


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
    """The share of the returns' variance over the mask that `values` account for; 0 where they do not vary."""
    selected = mask > 0
    targets = returns[selected]
    variance = targets.var(correction=0)
    if variance == 0:
        return torch.zeros_like(variance)
    return 1 - (targets - values[selected]).var(correction=0) / variance
