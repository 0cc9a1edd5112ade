"""What a segmenter's answers cost, and which query answers for which thing: those at which they cost least."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from kilonova.core.errors import ConfigError
from kilonova.models.segmenter.model import Answers
from kilonova.train.pictures.segmenter_recipe import SegmenterSection

_GAMMA = 2.0


@dataclass(frozen=True)
class Targets:
    """What is in each picture: `masks`, shares in [0, 1] `[B, N, h, w]`, which texts they fit, `labels` bool
    `[B, N, K]`, and which texts there are, `text_mask` bool `[B, K]`. What fits no text is no thing."""

    masks: Tensor
    labels: Tensor
    text_mask: Tensor

    @property
    def there(self) -> Tensor:
        """Which things there are, bool `[B, N]`."""
        return self.labels.any(2)


def focal_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """The cross-entropy of each logit, times the square of how far off it is (arXiv 1708.02002, equation 4, gamma 2).

    Without its balancing factor, so that a fit of 0.5 remains as likely as not.
    """
    signed = torch.where(labels.bool(), logits, -logits)
    return torch.sigmoid(-signed) ** _GAMMA * softplus(-signed)


def mask_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """The mean cross-entropy over each mask's pixels, `[M]` of `[M, h, w]`."""
    return (softplus(logits) - logits * masks).mean((1, 2))


def dice_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """1 less the dice coefficient, with one pixel added to both its parts (arXiv 1606.04797), `[M]` of `[M, h, w]`."""
    found = logits.sigmoid()
    return 1 - (2 * (found * masks).sum((1, 2)) + 1) / (found.sum((1, 2)) + masks.sum((1, 2)) + 1)


@torch.no_grad()
def pair_costs(answers: Answers, targets: Targets, section: SegmenterSection) -> Tensor:
    """How much each pair of a query and a thing adds to the loss, before it is divided by the number of things:
    `[B, Q, N]`."""
    classes = answers.class_logits
    gained = focal_loss(classes, torch.ones_like(classes)) - focal_loss(classes, torch.zeros_like(classes))
    logits, pixels = answers.mask_logits.flatten(2), targets.masks.flatten(2)
    things = pixels.transpose(1, 2)
    cross_entropy = softplus(logits).mean(2, keepdim=True) - logits @ things / pixels.shape[2]
    found = logits.sigmoid()
    size = found.sum(2, keepdim=True) + pixels.sum(2)[:, None]
    dice = 1 - (2 * found @ things + 1) / (size + 1)
    return (
        section.class_weight * gained @ targets.labels.to(gained.dtype).transpose(1, 2)
        + section.mask_weight * cross_entropy
        + section.dice_weight * dice
    )


Pairs = tuple[Tensor, Tensor, Tensor]
"""Which belong together: for each pair the numbers of its picture, its query and its thing, int64 `[M]` each."""


def match(answers: Answers, targets: Targets, section: SegmenterSection) -> Pairs:
    """The pairs, in each picture, of the least total loss: all queries, of whatever sort, in one assignment."""
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError as missing:
        raise ConfigError("scipy must be installed first: pip install 'kilonova[data]'") from missing
    costs = pair_costs(answers, targets, section).cpu().numpy().astype(np.float64)
    pictures, queries, things = [], [], []
    for number, there in enumerate(targets.there.cpu().numpy()):
        present = np.nonzero(there)[0]
        rows, columns = linear_sum_assignment(costs[number][:, present])
        pictures.append(np.full(len(rows), number))
        queries.append(rows)
        things.append(present[columns])
    device = answers.class_logits.device
    first, second, third = (torch.from_numpy(np.concatenate(part)).to(device) for part in (pictures, queries, things))
    return first, second, third


@dataclass(frozen=True)
class AnswerLoss:
    """Parts of the loss of each picture, float32 `[B]` each, not yet weighted; each is divided by the number of the
    picture's things."""

    classes: Tensor
    masks: Tensor
    dice: Tensor

    def total(self, section: SegmenterSection) -> Tensor:
        """The weighted sum, `[B]`."""
        return section.class_weight * self.classes + section.mask_weight * self.masks + section.dice_weight * self.dice


def answer_loss(answers: Answers, targets: Targets, pairs: Pairs) -> AnswerLoss:
    """What `answers` cost when `pairs` belong together: a matched query is to fit its thing's texts and mask, and every
    other is to fit no text."""
    pictures, queries, things = pairs
    wanted = torch.zeros_like(answers.class_logits)
    wanted[pictures, queries] = targets.labels[pictures, things].to(wanted.dtype)
    count = targets.there.sum(1).clamp(min=1)
    classes = (focal_loss(answers.class_logits, wanted) * targets.text_mask[:, None]).sum((1, 2)) / count
    logits, masks = answers.mask_logits[pictures, queries], targets.masks[pictures, things]
    none, share = torch.zeros_like(classes), 1 / count[pictures]
    return AnswerLoss(
        classes,
        none.index_add(0, pictures, mask_loss(logits, masks) * share),
        none.index_add(0, pictures, dice_loss(logits, masks) * share),
    )


def foreground_loss(alpha_logits: Tensor, alpha: Tensor) -> Tensor:
    """The mean absolute error of the foreground's share, its cross-entropy and its dice loss, `[B]` of `[B, H, W]`."""
    absolute = (alpha_logits.sigmoid() - alpha).abs().mean((1, 2))
    return absolute + mask_loss(alpha_logits, alpha) + dice_loss(alpha_logits, alpha)
