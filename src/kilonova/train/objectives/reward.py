"""A reward model learnt from preferences."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, logsigmoid

from kilonova.core.errors import ConfigError
from kilonova.data.preferences import PairBatch
from kilonova.models.reward import RewardModel, last_positions, save_reward_model
from kilonova.train.language_context import LanguageContext
from kilonova.train.objective import Loss
from kilonova.train.objectives.pairs import PairData, completion_lengths, of_pairs, pair_results, reshard
from kilonova.train.placed import PlacedDecoder


@dataclass(frozen=True, kw_only=True)
class RewardSection:
    """`center_rewards_coefficient` weighs the square of a pair's summed rewards, which keeps their mean near 0
    (arXiv 2312.09244, equation 2). `length_coefficient` is the part of a preference that one token more explains by
    itself, so that the reward need not learn it (R-DPO, arXiv 2403.19159, which has it for DPO).
    """

    center_rewards_coefficient: float = 0.0
    length_coefficient: float = 0.0

    def __post_init__(self) -> None:
        if self.center_rewards_coefficient < 0:
            raise ConfigError("reward.center_rewards_coefficient: must be at least 0")


def reward_losses(section: RewardSection, rewards: Tensor, margins: Tensor, lengths: Tensor) -> Tensor:
    """Bradley-Terry losses `[N]` of `rewards` and completion `lengths` in tokens, both `[N, 2]`, chosen first.

    `-log sigmoid(r_chosen - r_rejected - margin)` (arXiv 2203.02155, equation 1; the margin as in arXiv 2307.09288,
    equation 2), with the options of the section.
    """
    difference = rewards[:, 0] - rewards[:, 1] - margins + section.length_coefficient * (lengths[:, 0] - lengths[:, 1])
    return -logsigmoid(difference) + section.center_rewards_coefficient * rewards.sum(dim=1).square()


class RewardObjective:
    """The decoder's layers under a fresh scalar head, which learns to score chosen answers above rejected ones."""

    def __init__(self, context: LanguageContext, model: PlacedDecoder) -> None:
        recipe = context.recipe
        if recipe.adapter is not None:
            raise ConfigError("adapter: not for a reward model, whose head is trained too")
        self.model = model
        self._reward_model = RewardModel.from_decoder(model.decoder, torch.Generator().manual_seed(recipe.seed))
        self.trained: nn.Module = self._reward_model
        self.tokens_per_step = recipe.batch_size * recipe.data.sequence_length
        self.flops_per_token = model.decoder.flops_per_token(recipe.data.sequence_length)
        self.flops_per_token -= 6.0 * model.output_weight.numel()
        self._section = recipe.reward or RewardSection()
        self._save_dtype = getattr(torch, recipe.save_dtype)
        self._data = PairData(context)
        self.micro_batches = self._data.micro_batches

    def num_items(self, batch: PairBatch) -> int:
        return batch.num_pairs

    def loss(self, batch: PairBatch) -> Loss:
        rewards, losses = self._rewards_and_losses(batch, torch.from_numpy(self._data.rows.margins))
        margin = (rewards[:, 0] - rewards[:, 1]).detach()
        metrics = {
            "accuracy": (margin > 0).float().sum(),
            "margin": margin.sum(),
            "mean_reward": rewards.detach().mean(dim=1).sum(),
        }
        return Loss(losses.sum(), metrics)

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Loss, margin, and accuracy with its 95 % bootstrap interval on each validation source."""
        results: dict[str, float] = {}
        for name, pairs in self._data.validation.items():
            found = [
                self._rewards_and_losses(batch, torch.from_numpy(pairs.margins))
                for batch in self._data.batches(self._data.packed(pairs))
            ]
            margins = [rewards[:, 0] - rewards[:, 1] for rewards, _ in found]
            results |= pair_results(name, [losses for _, losses in found], margins)
        reshard(self.model)
        return results

    def export(self, directory: Path) -> None:
        save_reward_model(self._reward_model, directory, dtype=self._save_dtype)

    def data_record(self) -> dict[str, Any]:
        return self._data.record()

    def step_done(self) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass

    def _rewards_and_losses(self, batch: PairBatch, margins: Tensor) -> tuple[Tensor, Tensor]:
        batch = batch.to(self.model.device)
        hidden = self.model.hidden_states(batch.rows)
        last = last_positions(batch.rows.document_ids, 2 * batch.pairs.shape[1])
        hidden = hidden.gather(1, last[:, :, None].expand(-1, -1, hidden.shape[2]))
        # A single output a document: float32 costs nothing, and bfloat16 would tie close rewards.
        scores = linear(hidden.float(), self._reward_model.score.weight).squeeze(2)
        rewards = of_pairs(scores, batch.pairs)
        margins = margins.to(self.model.device)[batch.pairs[batch.pairs >= 0]]
        return rewards, reward_losses(self._section, rewards, margins, completion_lengths(batch))
