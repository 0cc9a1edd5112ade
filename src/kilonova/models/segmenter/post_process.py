"""What a segmenter's queries say, put together for each way of asking."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kilonova.models.segmenter.model import Answers

# From here on a query that fits a text best is taken for what it means.
_SURE = 0.6
_LEAST_SCORE = 0.3
_MAX_OVERLAP = 0.6


@dataclass(frozen=True)
class Instance:
    """One thing: the number of its text, how surely it is that in [0, 1], and its mask's logits `[h, w]`."""

    text: int
    score: float
    mask_logits: Tensor


def fits(answers: Answers) -> Tensor:
    """How surely each text is fitted by each query, in [0, 1], `[B, Q, K]`.

    What fits a text best counts in full from 0.6 on, and others in proportion to it.
    """
    scores = answers.class_logits.sigmoid()
    return scores / scores.amax(1, keepdim=True).clamp(min=_SURE)


def certainty(answers: Answers, mask_logits: Tensor | None = None) -> Tensor:
    """How surely each pixel belongs to what each text names, in [0, 1], `[B, K, h, w]`.

    It is as sure as the query that says so, or its mask, whichever is less sure. `mask_logits` may be those of the
    answers at another resolution.
    """
    masks = (answers.mask_logits if mask_logits is None else mask_logits).sigmoid()
    sure = fits(answers)
    found = masks.new_zeros(len(masks), sure.shape[2], *masks.shape[2:])
    for query in range(sure.shape[1]):
        found = torch.maximum(found, torch.minimum(sure[:, query, :, None, None], masks[:, query, None]))
    return found


def semantic(certainty: Tensor) -> Tensor:
    """For each pixel the number of the text it belongs to most surely, int64 `[B, h, w]`; -1 where none is likely."""
    best = certainty.max(1)
    return torch.where(best.values >= 0.5, best.indices, -1)


def instances(answers: Answers, picture: int) -> list[Instance]:
    """The things in one picture, surest first, each called by the text it fits best.

    A score is the fit times how sure the mask is of itself (as in arXiv 2112.01527). Of things of one text whose masks
    have more than 0.6 of their union in common, the surest is kept.
    """
    masks = answers.mask_logits[picture]
    inside = masks > 0
    area = inside.sum((1, 2))
    own = (masks.sigmoid() * inside).sum((1, 2)) / area.clamp(min=1)
    scores, texts = answers.class_logits[picture].sigmoid().max(1)
    scores = scores * own
    kept: list[int] = []
    for query in scores.argsort(descending=True, stable=True).tolist():
        if scores[query] < _LEAST_SCORE or not area[query]:
            continue
        rivals = [other for other in kept if texts[other] == texts[query]]
        if all(_overlap(inside[query], inside[other]) <= _MAX_OVERLAP for other in rivals):
            kept.append(query)
    return [Instance(int(texts[query]), float(scores[query]), masks[query]) for query in kept]


def _overlap(first: Tensor, second: Tensor) -> float:
    return float((first & second).sum() / (first | second).sum())
