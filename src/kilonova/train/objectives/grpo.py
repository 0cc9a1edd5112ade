"""Group-relative policy optimisation (arXiv 2402.03300) and its variants."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from kilonova.core.errors import ConfigError
from kilonova.train.experience import ExperienceBatch, Rollout
from kilonova.train.language_context import LanguageContext
from kilonova.train.objective import Loss
from kilonova.train.objectives.advantages import GroupBaseline, group_advantages
from kilonova.train.objectives.policy_loss import Aggregation, kl_estimate, policy_loss
from kilonova.train.objectives.reinforcement import ReinforcementObjective
from kilonova.train.placed import PlacedDecoder
from kilonova.train.rollout import CompletionGenerator, RolloutSection


@dataclass(frozen=True, kw_only=True)
class GRPOSection:
    """Each prompt is answered `group_size` times, and an answer is as good as it is better than the others.

    `baseline`: `grpo`, `dr_grpo` (no division by the group's standard deviation) or `rloo` (the mean of the others).
    `kl_coefficient` weighs the k3 estimate of the divergence from the model that the run began with; 0 needs no such
    model. The ratio of probabilities is clipped to `1 - clip_low ... 1 + clip_high`. `aggregation` is `token_mean`,
    `sequence_mean`, or `constant`, which divides by `rollout.max_new_tokens` (Dr. GRPO). Without a `reward_model`, a
    checkpoint directory, the rows' verifiers judge.
    """

    rollout: RolloutSection = field(default_factory=RolloutSection)
    group_size: int = 8
    epochs: int = 1
    reward_model: str | None = None
    baseline: GroupBaseline = "grpo"
    kl_coefficient: float = 0.0
    clip_low: float = 0.2
    clip_high: float = 0.2
    dual_clip: float | None = None
    aggregation: Aggregation = "token_mean"

    def __post_init__(self) -> None:
        if self.group_size < 2:
            raise ConfigError("grpo.group_size: must be at least 2")
        if self.epochs < 1:
            raise ConfigError("grpo.epochs: must be at least 1")
        if self.dual_clip is not None and self.dual_clip <= 1:
            raise ConfigError("grpo.dual_clip: must be above 1")


class GRPOObjective(ReinforcementObjective):
    """The clipped policy loss under advantages relative to a group of answers, with a KL penalty in the loss."""

    def __init__(
        self, context: LanguageContext, model: PlacedDecoder, generator: CompletionGenerator | None = None
    ) -> None:
        self.section = section = context.recipe.grpo or GRPOSection()
        self.trained = model.decoder
        super().__init__(
            context,
            model,
            section.rollout,
            group_size=section.group_size,
            epochs=section.epochs,
            reward_model=section.reward_model,
            has_reference=section.kl_coefficient != 0,
            aggregation=section.aggregation,
            generator=generator,
        )

    def learn_from(
        self, rollout: Rollout, rewards: Tensor, log_probs: Tensor, reference_log_probs: Tensor | None
    ) -> tuple[dict[str, Tensor], dict[str, float]]:
        size = self.section.group_size
        advantages = group_advantages(rewards, size, self.section.baseline)
        fields = {"old_log_probs": log_probs, "advantages": advantages[:, None] * rollout.mask}
        if reference_log_probs is not None:
            fields["reference_log_probs"] = reference_log_probs
        alike = rewards.view(-1, size).std(dim=1) == 0
        return fields, {"groups_alike": float(alike.float().mean())}

    def loss(self, batch: ExperienceBatch) -> Loss:
        section, batch = self.section, batch.to(self.model.device)
        fields = batch.fields
        log_probs = self.token_log_probs(self.model, batch.batch)
        losses, clipped = policy_loss(
            log_probs,
            fields["old_log_probs"],
            fields["advantages"],
            clip_low=section.clip_low,
            clip_high=section.clip_high,
            dual_clip=section.dual_clip,
        )
        per_token = {
            "policy_loss": losses,
            "clip_fraction": clipped,
            "update_kl": kl_estimate(fields["old_log_probs"], log_probs, "k3"),
        }
        if section.kl_coefficient:
            divergence = kl_estimate(log_probs, fields["reference_log_probs"], "k3")
            losses = losses + section.kl_coefficient * divergence
        return Loss((losses * fields["weights"]).sum(), self.step_metrics(batch, per_token))
