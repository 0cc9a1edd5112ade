"""Metrics against formulas written out by hand."""

from __future__ import annotations

import math
from collections import Counter

import pytest

from kilonova.evals.metrics import accuracy, bootstrap_mean, bootstrap_ratio, chrf, majority_share, rouge


def test_accuracy_has_wilsons_interval() -> None:
    # 8 of 10 at z = 1.96, from the worked example of the score interval: (0.490, 0.943).
    estimate = accuracy([True] * 8 + [False] * 2)
    assert estimate.value == 0.8
    assert estimate.low == pytest.approx(0.4902, abs=1e-4)
    assert estimate.high == pytest.approx(0.9433, abs=1e-4)
    assert accuracy([False] * 5).low == 0.0
    assert accuracy([True] * 5).high == 1.0
    with pytest.raises(ValueError, match="no answers"):
        accuracy([])


def test_bootstrap_intervals_hold_the_value_and_shrink() -> None:
    few = bootstrap_mean([0.0, 1.0] * 10, seed=0)
    many = bootstrap_mean([0.0, 1.0] * 1000, seed=0)
    assert few.value == many.value == 0.5
    assert few.low < 0.5 < few.high
    assert many.high - many.low < (few.high - few.low) / 5
    # Normal theory for 2000 coin flips: 1.96 * 0.5 / sqrt(2000) = 0.0219.
    assert many.high - 0.5 == pytest.approx(0.0219, abs=0.003)
    assert bootstrap_mean([0.0, 1.0] * 10, seed=0) == few


def test_bootstrap_ratio_is_sum_over_sum() -> None:
    estimate = bootstrap_ratio([2.0, 9.0], [1.0, 3.0], seed=1)
    assert estimate.value == 11 / 4
    assert estimate.low == pytest.approx(2.0)
    assert estimate.high == pytest.approx(3.0)


def test_majority_share() -> None:
    assert majority_share(["a", "b", "a", "c"]) == 0.5


def grams(text: str, order: int) -> Counter:
    letters = text.replace(" ", "")
    return Counter(letters[i : i + order] for i in range(len(letters) - order + 1))


def test_chrf_is_the_mean_of_character_f2() -> None:
    hypotheses, references = ["the cat sat down", "a dog"], ["the cat sat on it", "a frog"]
    scores = []
    for order in range(1, 7):
        match = total_hypothesis = total_reference = 0
        for hypothesis, reference in zip(hypotheses, references, strict=True):
            h, r = grams(hypothesis, order), grams(reference, order)
            match += sum((h & r).values())
            total_hypothesis += sum(h.values())
            total_reference += sum(r.values())
        precision, recall = match / total_hypothesis, match / total_reference
        scores.append(5 * precision * recall / (4 * precision + recall) if precision + recall else 0.0)
    estimate = chrf(hypotheses, references)
    assert estimate.value == pytest.approx(100 * sum(scores) / 6, abs=0.5)
    assert chrf(["same", "same"], ["same", "same"]).value == pytest.approx(100)
    single = chrf(["same"], ["some"])
    assert single.low == single.value == single.high


def test_rouge_by_hand_and_best_reference() -> None:
    # 3 of 4 and 3 of 3 words match: F1 = 2 * 0.75 * 1 / 1.75; bigrams: 1 of 3 and 1 of 2.
    found = rouge("the fox quickly reads", ["the fox reads"])
    assert found["rouge1"] == pytest.approx(2 * 0.75 / 1.75)
    assert found["rouge2"] == pytest.approx(2 * (1 / 3) * (1 / 2) / (1 / 3 + 1 / 2))
    assert found["rougeL"] == pytest.approx(2 * 0.75 / 1.75)
    assert rouge("the fox quickly reads", ["nothing", "the fox reads"]) == found
    assert math.isclose(rouge("", ["the fox"])["rouge1"], 0.0)
