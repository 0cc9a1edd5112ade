"""Losses and matching of a segmenter against plain formulas and against trying everything."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import torch

from kilonova.models.segmenter.model import Answers
from kilonova.train.pictures.segmenter_losses import (
    Targets,
    answer_loss,
    dice_loss,
    focal_loss,
    foreground_loss,
    mask_loss,
    match,
)
from kilonova.train.pictures.segmenter_metrics import PanopticQuality, intersection_over_union
from kilonova.train.pictures.segmenter_recipe import SegmenterSection

QUERIES, TEXTS, SIZE = 5, 4, 6


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def problem(generator: torch.Generator, things: tuple[int, ...] = (3, 0, 2)) -> tuple[Answers, Targets]:
    """Random answers about pictures with so many things each; the first has a text fewer than the others."""
    classes = torch.randn(len(things), QUERIES, TEXTS, generator=generator, dtype=torch.float64)
    masks = 3 * torch.randn(len(things), QUERIES, SIZE, SIZE, generator=generator, dtype=torch.float64)
    text_mask = torch.ones(len(things), TEXTS, dtype=torch.bool)
    text_mask[0, -1] = False
    labels = torch.rand(len(things), max(things), TEXTS, generator=generator) < 0.5
    labels[..., 0] = True
    labels &= text_mask[:, None] & (torch.arange(max(things)) < torch.tensor(things)[:, None])[..., None]
    true = torch.rand(len(things), max(things), SIZE, SIZE, generator=generator, dtype=torch.float64)
    return Answers(classes, masks), Targets(true, labels, text_mask)


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def plain_loss(answers: Answers, targets: Targets, picture: int, pairs: dict[int, int]) -> float:
    """The loss of one picture, number by number."""
    section = SegmenterSection()
    labels, masks = targets.labels[picture], targets.masks[picture]
    count = int(targets.there[picture].sum())
    total = 0.0
    for query in range(QUERIES):
        for text in targets.text_mask[picture].nonzero()[:, 0].tolist():
            chance = _sigmoid(float(answers.class_logits[picture, query, text]))
            right = chance if query in pairs and labels[pairs[query], text] else 1 - chance
            total -= section.class_weight * (1 - right) ** 2 * math.log(right)
        if query in pairs:
            found = [_sigmoid(x) for x in answers.mask_logits[picture, query].flatten().tolist()]
            true = masks[pairs[query]].flatten().tolist()
            both = list(zip(found, true, strict=True))
            cross = -sum(t * math.log(f) + (1 - t) * math.log(1 - f) for f, t in both) / len(both)
            dice = 1 - (2 * sum(f * t for f, t in both) + 1) / (sum(found) + sum(true) + 1)
            total += section.mask_weight * cross + section.dice_weight * dice
    return total / max(count, 1)


def test_the_loss_is_that_of_the_formulas_and_matching_makes_it_least(generator: torch.Generator) -> None:
    answers, targets = problem(generator)
    pairs = match(answers, targets, SegmenterSection())
    losses = answer_loss(answers, targets, pairs).total(SegmenterSection())
    for picture, count in enumerate((3, 0, 2)):
        chosen = {query: thing for number, query, thing in zip(*(part.tolist() for part in pairs), strict=True)
                  if number == picture}  # fmt: skip
        assert sorted(chosen.values()) == list(range(count))
        assert float(losses[picture]) == pytest.approx(plain_loss(answers, targets, picture, chosen))
        every = [
            plain_loss(answers, targets, picture, dict(zip(taken, range(count), strict=True)))
            for taken in permutations(range(QUERIES), count)
        ]
        assert float(losses[picture]) == pytest.approx(min(every))


def test_matching_minds_every_part_of_the_loss(generator: torch.Generator) -> None:
    answers, targets = problem(generator, (4,))
    for part in ("class_weight", "mask_weight", "dice_weight"):
        section = replace(SegmenterSection(class_weight=0, mask_weight=0, dice_weight=0), **{part: 1.0})
        pictures, queries, things = match(answers, targets, section)
        alone = float(answer_loss(answers, targets, (pictures, queries, things)).total(section))
        turned = float(answer_loss(answers, targets, (pictures, queries, things.roll(1))).total(section))
        assert alone < turned


def test_losses_of_masks_are_those_of_torch_and_of_perfect_masks_nothing(generator: torch.Generator) -> None:
    logits = torch.randn(2, 4, 4, generator=generator)
    masks = torch.rand(2, 4, 4, generator=generator)
    cross = torch.nn.functional.binary_cross_entropy_with_logits(logits, masks, reduction="none").mean((1, 2))
    torch.testing.assert_close(mask_loss(logits, masks), cross)
    whole = (masks > 0.5).float()
    perfect = (whole * 2 - 1) * 100
    for loss in (mask_loss, dice_loss, foreground_loss):
        torch.testing.assert_close(loss(perfect, whole), torch.zeros(2), atol=1e-6, rtol=0)
        assert (loss(-perfect, whole) > 0.9).all()
    # Half of the pixels, all of them taken: 2 * 8 + 1 by 16 + 8 + 1.
    half = torch.zeros(1, 4, 4)
    half[:, :2] = 1
    torch.testing.assert_close(dice_loss(torch.full((1, 4, 4), 100.0), half), torch.tensor([1 - 17 / 25]))
    assert float(focal_loss(torch.tensor(1000.0), torch.tensor(0.0))) == pytest.approx(1000.0)


def test_overlaps_and_panoptic_quality_count_pixels_and_things() -> None:
    generator = np.random.default_rng(0)
    first, second = (generator.random((3, 5, 5)) < 0.5 for _ in range(2))
    expected = [(a & b).sum() / (a | b).sum() for a, b in zip(first, second, strict=True)]
    found = intersection_over_union(torch.from_numpy(first), torch.from_numpy(second))
    np.testing.assert_allclose(found.numpy(), expected)
    empty = torch.zeros(5, 5, dtype=torch.bool)
    assert float(intersection_over_union(empty, empty)) == 1
    assert float(intersection_over_union(empty, ~empty)) == 0

    rows = torch.zeros(4, 4, 4, dtype=torch.bool)
    for row in range(4):
        rows[row, row] = True
    quality = PanopticQuality()
    nearly = rows[0] | rows[3]
    nearly[3, :3] = False
    # One exact, one at 4 / 5, one of the wrong text, one found twice; one that nobody found.
    true = [(frozenset({0}), rows[0]), (frozenset({1, 2}), rows[1]), (frozenset({1}), rows[2])]
    quality.add([(0, nearly), (2, rows[1]), (0, rows[2]), (2, rows[1])], true)
    assert quality.value == pytest.approx((4 / 5 + 1) / (2 + (2 + 1) / 2))
    assert PanopticQuality().value == 1
