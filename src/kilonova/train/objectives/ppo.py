"""Proximal policy optimisation (arXiv 1707.06347) against a reward and a KL penalty (arXiv 2203.02155)."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from kilonova.core.errors import ConfigError
from kilonova.models.reward import RewardModel
from kilonova.train.experience import ExperienceBatch, Rollout
from kilonova.train.language_context import LanguageContext
from kilonova.train.objective import Loss
from kilonova.train.objectives.advantages import explained_variance, generalized_advantages, whiten
from kilonova.train.objectives.policy_loss import (
    Aggregation,
    KLController,
    KLEstimator,
    kl_estimate,
    policy_loss,
    value_loss,
)
from kilonova.train.objectives.reinforcement import ReinforcementObjective
from kilonova.train.placed import PlacedDecoder
from kilonova.train.rewards import PlacedScorer
from kilonova.train.rollout import CompletionGenerator, RolloutSection


@dataclass(frozen=True, kw_only=True)
class PPOSection:
    """Actor and critic, and what they learn from each rollout in `epochs` passes.

    Without a `reward_model`, a checkpoint directory, the rows' verifiers judge. `value_init_from` says whose layers the
    value model starts with. The reward of a token is `-kl_coefficient` times the `kl_estimator` of the divergence from
    the model that the run began with; the last one's has the completion's reward added. With a `kl_target`, in nats a
    completion, the coefficient is steered to it over `kl_horizon` completions. `dual_clip`, above 1, bounds the loss
    under a negative advantage; `value_clip_range` null clips no values. `aggregation` is `token_mean`,
    `sequence_mean`, or `constant`, which divides by `rollout.max_new_tokens`.
    """

    rollout: RolloutSection = field(default_factory=RolloutSection)
    epochs: int = 2
    reward_model: str | None = None
    value_init_from: Literal["policy", "reward_model"] = "policy"
    gamma: float = 1.0
    gae_lambda: float = 0.95
    whiten_advantages: bool = True
    clip_range: float = 0.2
    dual_clip: float | None = None
    value_clip_range: float | None = 0.2
    value_coefficient: float = 0.1
    kl_coefficient: float = 0.05
    kl_estimator: KLEstimator = "k1"
    kl_target: float | None = None
    kl_horizon: int = 10_000
    aggregation: Aggregation = "token_mean"

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ConfigError("ppo.epochs: must be at least 1")
        if self.value_init_from == "reward_model" and self.reward_model is None:
            raise ConfigError("ppo.value_init_from: reward_model needs ppo.reward_model")
        if self.dual_clip is not None and self.dual_clip <= 1:
            raise ConfigError("ppo.dual_clip: must be above 1")
        if self.kl_target is not None and (self.kl_target <= 0 or self.kl_coefficient == 0):
            raise ConfigError("ppo.kl_target: must be above 0, and needs a kl_coefficient to begin with")


class PPOObjective(ReinforcementObjective):
    """Policy and value model, trained together; `trained` holds them as `policy` and `value`."""

    def __init__(
        self, context: LanguageContext, model: PlacedDecoder, generator: CompletionGenerator | None = None
    ) -> None:
        self.section = section = context.recipe.ppo or PPOSection()
        super().__init__(
            context,
            model,
            section.rollout,
            group_size=1,
            epochs=section.epochs,
            reward_model=section.reward_model,
            has_reference=section.kl_coefficient != 0,
            aggregation=section.aggregation,
            generator=generator,
        )
        if section.value_init_from == "reward_model" and self.scorer is not None:
            value = copy.deepcopy(self.scorer.model).requires_grad_(True)
        else:
            draws = torch.Generator().manual_seed(context.recipe.seed)
            value = RewardModel.from_decoder(copy.deepcopy(model.decoder), draws)
        self.value = PlacedScorer(value, model)
        self.trained = nn.ModuleDict({"policy": model.decoder, "value": value})
        value_flops = self.value.flops_per_token(context.recipe.data.sequence_length)
        self.flops_per_token += value_flops * (1 + 1 / (3 * section.epochs))
        self._controller = KLController(section.kl_coefficient, section.kl_target, section.kl_horizon)

    def learn_from(
        self, rollout: Rollout, rewards: Tensor, log_probs: Tensor, reference_log_probs: Tensor | None
    ) -> tuple[dict[str, Tensor], dict[str, float]]:
        section, mask, coefficient = self.section, rollout.mask, self._controller.coefficient
        values = self.frozen(self.value.scores, rollout.batch()) * mask
        token_rewards = rewards[:, None] * rollout.last_positions()
        if reference_log_probs is not None:
            token_rewards -= coefficient * kl_estimate(log_probs, reference_log_probs, section.kl_estimator) * mask
            divergence = float((log_probs - reference_log_probs).sum(dim=1).mean())
            self._controller.update(divergence, len(mask))
        advantages, returns = generalized_advantages(
            token_rewards, values, mask, gamma=section.gamma, gae_lambda=section.gae_lambda
        )
        metrics = {
            "kl_coefficient": coefficient,
            "explained_variance": float(explained_variance(values, returns, mask)),
            "return": float(token_rewards.sum(dim=1).mean()),
        }
        if section.whiten_advantages:
            advantages = whiten(advantages, mask)
        fields = {"old_log_probs": log_probs, "old_values": values, "advantages": advantages, "returns": returns}
        return fields, metrics

    def loss(self, batch: ExperienceBatch) -> Loss:
        section, batch = self.section, batch.to(self.model.device)
        fields = batch.fields
        log_probs = self.token_log_probs(self.model, batch.batch)
        policy_losses, clipped = policy_loss(
            log_probs,
            fields["old_log_probs"],
            fields["advantages"],
            clip_low=section.clip_range,
            clip_high=section.clip_range,
            dual_clip=section.dual_clip,
        )
        value_losses, values_clipped = value_loss(
            self.value.scores(batch.batch), fields["old_values"], fields["returns"], section.value_clip_range
        )
        per_token = {
            "policy_loss": policy_losses,
            "value_loss": value_losses,
            "clip_fraction": clipped,
            "value_clip_fraction": values_clipped,
            "update_kl": kl_estimate(fields["old_log_probs"], log_probs, "k3"),
        }
        losses = policy_losses + section.value_coefficient * value_losses
        return Loss((losses * fields["weights"]).sum(), self.step_metrics(batch, per_token))

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"kl_coefficient": self._controller.coefficient}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._controller.coefficient = state["kl_coefficient"]
