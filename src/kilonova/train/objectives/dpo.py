"""Direct preference optimisation and its relatives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from kilonova.core.errors import ConfigError
from kilonova.data.preferences import PairBatch, TokenizedPairs
from kilonova.models.checkpoint import save_decoder
from kilonova.train.language_context import LanguageContext
from kilonova.train.objective import Loss
from kilonova.train.objectives.pairs import PairData, completion_lengths, completion_log_probs, pair_results
from kilonova.train.objectives.reference import model_digest, reference_log_probs
from kilonova.train.placed import PlacedDecoder

_WITHOUT_REFERENCE = ("simpo", "orpo")
_WITH_LABEL_SMOOTHING = ("sigmoid", "robust", "simpo")


@dataclass(frozen=True, kw_only=True)
class DPOSection:
    """The loss of a pair, from the log-probabilities of its completions under the policy and the starting model.

    `loss` is `sigmoid` (arXiv 2305.18290, equation 7), `robust` (2403.00409, equation 6), `hinge` (SLiC, 2305.10425,
    with the reference as 2309.06657 has it), `ipo` (2310.12036, equation 17, of means over tokens), `sigmoid_norm`
    (the first with means over tokens, as Tulu 3, 2411.15124, has it), or without a reference `simpo` (2405.14734,
    equation 6, with `simpo_gamma`) and `orpo` (2403.07691, equation 6, whose lambda is `beta`). `label_smoothing` is
    the share of pairs held to be labelled wrongly. `length_coefficient` is the part of a preference that one token more
    explains by itself (R-DPO, 2403.19159). `sft_weight` adds so much of the chosen completion's negative
    log-likelihood a token (RPO, 2404.19733, equation 1).
    """

    loss: Literal["sigmoid", "robust", "hinge", "ipo", "sigmoid_norm", "simpo", "orpo"] = "sigmoid"
    beta: float = 0.1
    label_smoothing: float = 0.0
    simpo_gamma: float = 0.5
    length_coefficient: float = 0.0
    sft_weight: float = 0.0

    def __post_init__(self) -> None:
        if self.beta <= 0:
            raise ConfigError("dpo.beta: must be above 0")
        if not 0 <= self.label_smoothing < 0.5:
            raise ConfigError("dpo.label_smoothing: must be at least 0 and below 0.5")
        if self.label_smoothing and self.loss not in _WITH_LABEL_SMOOTHING:
            raise ConfigError(f"dpo.label_smoothing: only for the losses {', '.join(_WITH_LABEL_SMOOTHING)}")
        if self.length_coefficient and self.loss not in ("sigmoid", "robust", "hinge"):
            raise ConfigError("dpo.length_coefficient: only for the losses sigmoid, robust, hinge")

    @property
    def has_reference(self) -> bool:
        return self.loss not in _WITHOUT_REFERENCE


def dpo_losses(section: DPOSection, log_probs: Tensor, reference: Tensor, lengths: Tensor) -> Tensor:
    """The loss `[N]` of each pair.

    `log_probs` and `reference` are the completions' log-probabilities under the policy and under the reference (zeros
    without one), `lengths` their tokens, all float32 `[N, 2]` with the chosen one first.
    """
    ratios = log_probs - reference
    means = ratios / lengths
    beta, smoothing = section.beta, section.label_smoothing
    difference = ratios[:, 0] - ratios[:, 1]
    mean_difference = means[:, 0] - means[:, 1]
    logits = beta * difference + section.length_coefficient * (lengths[:, 0] - lengths[:, 1])
    match section.loss:
        case "sigmoid":
            losses = _smoothed(logits, smoothing)
        case "robust":
            kept, flipped = (1 - smoothing) * logsigmoid(logits), smoothing * logsigmoid(-logits)
            losses = (flipped - kept) / (1 - 2 * smoothing)
        case "hinge":
            losses = torch.relu(1 - logits)
        case "ipo":
            losses = (mean_difference - 1 / (2 * beta)).square()
        case "sigmoid_norm":
            losses = -logsigmoid(beta * mean_difference)
        case "simpo":
            losses = _smoothed(beta * mean_difference - section.simpo_gamma, smoothing)
        case "orpo":
            # log(1 - p), at a distance from p = 1 at which its gradient is finite
            complement = torch.log1p(-means.exp().clamp_max(1 - 1e-6))
            odds_ratio = mean_difference - (complement[:, 0] - complement[:, 1])
            losses = -means[:, 0] - beta * logsigmoid(odds_ratio)
    return losses - section.sft_weight * log_probs[:, 0] / lengths[:, 0]


def _smoothed(logits: Tensor, smoothing: float) -> Tensor:
    return -(1 - smoothing) * logsigmoid(logits) - smoothing * logsigmoid(-logits)


class DPOObjective:
    """A decoder that learns to prefer the chosen completions more than the model it started from does.

    The starting model's log-probabilities are computed before the first step and kept on disk, so that training holds
    one model.
    """

    def __init__(self, context: LanguageContext, model: PlacedDecoder) -> None:
        recipe = context.recipe
        self.model = model
        self.trained: nn.Module = model.decoder
        self.tokens_per_step = recipe.batch_size * recipe.data.sequence_length
        self.flops_per_token = model.decoder.flops_per_token(recipe.data.sequence_length)
        self._section = recipe.dpo or DPOSection()
        self._save_dtype = getattr(torch, recipe.save_dtype)
        self._data = PairData(context)
        self.micro_batches = self._data.micro_batches
        digest = model_digest(model.decoder) if self._section.has_reference else ""
        self._reference = torch.cat(list(self._references(context, digest, self._data.sources).values()))
        self._validation_references = self._references(context, digest, self._data.validation)

    def num_items(self, batch: PairBatch) -> int:
        return batch.num_pairs

    def loss(self, batch: PairBatch) -> Loss:
        log_probs, rewards, losses = self._compute(batch, self._reference)
        log_probs, rewards = log_probs.detach(), rewards.detach()
        margins = rewards[:, 0] - rewards[:, 1]
        metrics = {
            "rewards/chosen": rewards[:, 0].sum(),
            "rewards/rejected": rewards[:, 1].sum(),
            "rewards/accuracies": (margins > 0).float().sum(),
            "rewards/margins": margins.sum(),
            "logps/chosen": log_probs[:, 0].sum(),
            "logps/rejected": log_probs[:, 1].sum(),
        }
        return Loss(losses.sum(), metrics)

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Loss, reward margin, and accuracy with its 95 % bootstrap interval on each validation source."""
        results: dict[str, float] = {}
        for name, pairs in self._data.validation.items():
            found = [
                self._compute(batch, self._validation_references[name])[1:]
                for batch in self._data.batches(self._data.packed(pairs))
            ]
            margins = [rewards[:, 0] - rewards[:, 1] for rewards, _ in found]
            results |= pair_results(name, [losses for _, losses in found], margins)
        return results

    def export(self, directory: Path) -> None:
        save_decoder(self.model.decoder, directory, dtype=self._save_dtype)

    def data_record(self) -> dict[str, Any]:
        return self._data.record()

    def step_done(self) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass

    def _references(
        self, context: LanguageContext, digest: str, sources: Mapping[str, TokenizedPairs]
    ) -> dict[str, Tensor]:
        """Log-probabilities under the reference by source, zeros where the loss needs none."""
        if not self._section.has_reference:
            return {name: torch.zeros(len(pairs), 2) for name, pairs in sources.items()}
        return {
            name: reference_log_probs(context, self.model, digest, self._data, name, pairs)
            for name, pairs in sources.items()
        }

    def _compute(self, batch: PairBatch, reference: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log-probabilities and implicit rewards `[N, 2]`, and losses `[N]`."""
        batch = batch.to(self.model.device)
        log_probs = completion_log_probs(self.model, batch)
        lengths = completion_lengths(batch)
        of_batch = reference.to(self.model.device)[batch.pairs[batch.pairs >= 0]]
        ratios = log_probs - of_batch
        if not self._section.has_reference:
            ratios = ratios / lengths
        return log_probs, self._section.beta * ratios, dpo_losses(self._section, log_probs, of_batch, lengths)
