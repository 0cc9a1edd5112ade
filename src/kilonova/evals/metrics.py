"""Scores with 95 % confidence intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kilonova.core.errors import ConfigError

NORMAL_975 = 1.959963984540054
RESAMPLES = 1000
ROUGE_TYPES = ("rouge1", "rouge2", "rougeL")


@dataclass(frozen=True)
class Estimate:
    """A score and its 95 % confidence interval."""

    value: float
    low: float
    high: float


def accuracy(correct: Sequence[bool]) -> Estimate:
    """The share of correct answers with Wilson's score interval (Wilson 1927, doi:10.1080/01621459.1927.10502953)."""
    count = len(correct)
    if not count:
        raise ValueError("accuracy of no answers")
    share = sum(correct) / count
    z2 = NORMAL_975**2
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = NORMAL_975 / (1 + z2 / count) * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    return Estimate(share, max(0.0, centre - half), min(1.0, centre + half))


def bootstrap_mean(values: Sequence[float], seed: int) -> Estimate:
    """The mean with a percentile bootstrap interval over the values."""
    return bootstrap_ratio(values, [1.0] * len(values), seed)


def bootstrap_ratio(numerators: Sequence[float], denominators: Sequence[float], seed: int) -> Estimate:
    """Sum over sum with a percentile bootstrap interval over the pairs."""
    if not numerators:
        raise ValueError("ratio of no values")
    top, bottom = np.asarray(numerators, dtype=float), np.asarray(denominators, dtype=float)
    chosen = np.random.default_rng(seed).integers(0, len(top), size=(RESAMPLES, len(top)))
    ratios = top[chosen].sum(axis=1) / bottom[chosen].sum(axis=1)
    low, high = np.quantile(ratios, (0.025, 0.975))
    return Estimate(float(top.sum() / bottom.sum()), float(low), float(high))


def majority_share(answers: Sequence[str]) -> float:
    """The accuracy of always giving the most frequent answer."""
    return max(answers.count(answer) for answer in set(answers)) / len(answers)


def chrf(hypotheses: Sequence[str], references: Sequence[str]) -> Estimate:
    """chrF2 of a corpus, 0 to 100, by sacrebleu with its bootstrap (Popović 2015, W15-3049).

    Raises ConfigError where sacrebleu is not installed.
    """
    try:
        from sacrebleu.metrics import CHRF
    except ImportError as error:
        raise ConfigError("chrF needs sacrebleu: install kilonova[eval]") from error
    if len(hypotheses) < 2:
        score = float(CHRF().corpus_score(hypotheses, [references]).score)
        return Estimate(score, score, score)
    result = CHRF().corpus_score(hypotheses, [references], n_bootstrap=RESAMPLES)
    # sacrebleu keeps the bootstrap mean and half width in these two attributes.
    mean, half = float(result._mean), float(result._ci)
    return Estimate(float(result.score), mean - half, mean + half)


def rouge(prediction: str, references: Sequence[str]) -> dict[str, float]:
    """ROUGE-1, -2 and -L F-measures, 0 to 1, with stemming; of several references the best one for each counts.

    Computed by rouge-score (Lin 2004, W04-1013). Raises ConfigError where it is not installed.
    """
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as error:
        raise ConfigError("ROUGE needs rouge-score: install kilonova[eval]") from error
    scores = RougeScorer(list(ROUGE_TYPES), use_stemmer=True).score_multi(list(references), prediction)
    return {name: float(scores[name].fmeasure) for name in ROUGE_TYPES}
