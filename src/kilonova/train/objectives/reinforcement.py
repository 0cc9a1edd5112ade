"""What PPO and GRPO share: completions of the policy are drawn, judged, and learnt from for some steps."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kilonova.core.errors import ConfigError
from kilonova.data.packing import Batch, EpochSampler
from kilonova.data.prompts import Prompt, PromptSet, read_prompts
from kilonova.data.sources import Source
from kilonova.data.tokens import tokenizer_fingerprint
from kilonova.models.checkpoint import save_decoder
from kilonova.models.reward import RewardModel, load_reward_model
from kilonova.nn.log_probs import token_log_probs
from kilonova.train.experience import Experience, ExperienceBatch, Rollout, make_rollout
from kilonova.train.language_context import LanguageContext
from kilonova.train.objective import Loss
from kilonova.train.objectives.policy_loss import Aggregation, token_weights
from kilonova.train.placed import PlacedDecoder
from kilonova.train.rewards import PlacedScorer, RewardFunction, RewardModelScores, verifier_rewards
from kilonova.train.rollout import CompletionGenerator, EngineGenerator, RolloutSection, completion_seed

_MAX_VALIDATION_PROMPTS = 64


class ReinforcementObjective(ABC):
    """A policy that learns from its own completions of prompts, each rollout for `epochs` passes in minibatches.

    A recipe's `batch_size` counts the completions of a minibatch, which is one optimiser step. Prompts, draws and the
    order of minibatches are functions of seed and step; the rollout at hand is part of the state. Rewards come from the
    rows' verifiers, or from the reward model that the recipe names.
    """

    trained: nn.Module

    def __init__(
        self,
        context: LanguageContext,
        model: PlacedDecoder,
        section: RolloutSection,
        *,
        group_size: int,
        epochs: int,
        reward_model: str | None,
        has_reference: bool,
        aggregation: Aggregation,
        generator: CompletionGenerator | None = None,
    ) -> None:
        recipe = context.recipe
        self.model = model
        self.tokens_per_step = recipe.batch_size * recipe.data.sequence_length
        self._context = context
        self._section = section
        self._group_size = group_size
        self._epochs = epochs
        self._aggregation = aggregation
        self._rollout_size = section.prompts * group_size
        self._check_sizes()

        self._prompts = self._read_prompts(recipe.data.sources)
        self._sampler = EpochSampler(len(self._prompts.prompts), section.prompts, recipe.seed)
        self._validation = {
            source.name: self._read_prompts([source]).prompts[:_MAX_VALIDATION_PROMPTS]
            for source in recipe.data.validation
        }
        self._generator = generator or EngineGenerator(model, context.tokenizer.stop_token_ids, section.max_num_seqs)
        self._reward: RewardFunction = verifier_rewards
        self.scorer: PlacedScorer | None = None
        if reward_model is not None:
            self.scorer = PlacedScorer(self._load_reward_model(reward_model), model)
            self._reward = RewardModelScores(self.scorer, model.device, recipe.micro_batch_size)
        self._reference: PlacedDecoder | None = None
        if has_reference:
            frozen = copy.deepcopy(model.decoder).eval().requires_grad_(False)
            self._reference = PlacedDecoder(frozen, model.device, model.dtype, model.compiled)
        self.flops_per_token = self._flops_per_token()
        self._number = -1
        self._experience: Experience | None = None

    @abstractmethod
    def learn_from(
        self, rollout: Rollout, rewards: Tensor, log_probs: Tensor, reference_log_probs: Tensor | None
    ) -> tuple[dict[str, Tensor], dict[str, float]]:
        """The fields `[N, T]` that the loss needs beside `mask` and `weights`, and metrics of the rollout."""

    @abstractmethod
    def loss(self, batch: ExperienceBatch) -> Loss: ...

    def micro_batches(self, step: int) -> Sequence[ExperienceBatch]:
        """The minibatch of `step`; the first step of a rollout draws it from the weights as they are."""
        recipe = self._context.recipe
        minibatches = self._rollout_size // recipe.batch_size
        number, place = divmod(step, minibatches * self._epochs)
        if self._experience is None or number != self._number:
            self._experience = self._gather(number)
            self._number = number
        epoch, part = divmod(place, minibatches)
        order = np.random.default_rng([recipe.seed, number, epoch]).permutation(self._rollout_size)
        rows = order[part * recipe.batch_size : (part + 1) * recipe.batch_size].tolist()
        size = recipe.micro_batch_size
        return [self._experience.rows(rows[start : start + size]) for start in range(0, len(rows), size)]

    def num_items(self, batch: ExperienceBatch) -> int:
        return batch.num_items

    def evaluate(self) -> dict[str, float]:
        """Mean reward of greedy answers to the first prompts of each validation source."""
        return {
            name: float(self._reward(self._draw(prompts, [0] * len(prompts), 0.0)).mean())
            for name, prompts in self._validation.items()
        }

    def export(self, directory: Path) -> None:
        save_decoder(self.model.decoder, directory, dtype=getattr(torch, self._context.recipe.save_dtype))

    def data_record(self) -> dict[str, Any]:
        sizes = self._prompts.sizes
        sources = [asdict(source) | sizes[source.name] for source in self._context.recipe.data.sources]
        return {"rows_in_one_pass": len(self._prompts.prompts), "sources": sources}

    def step_done(self) -> None:
        return

    def state_dict(self) -> dict[str, Any]:
        experience = None if self._experience is None else self._experience.state_dict()
        return {"sizes": self._sizes(), "rollout": self._number, "experience": experience}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["sizes"] != self._sizes():
            raise ConfigError(
                "rollout: prompts, group_size and epochs say which rollout a step belongs to and cannot change "
                f"within a run; they were {state['sizes']}, they are {self._sizes()}"
            )
        self._number = state["rollout"]
        experience = state["experience"]
        self._experience = None if experience is None else Experience.from_state_dict(experience)

    def token_log_probs(self, model: PlacedDecoder, batch: Batch) -> Tensor:
        """Log-probabilities `[B, T]` of the completions' tokens at the rollout's temperature, 0 elsewhere."""
        hidden = model.hidden_states(batch)
        with model.autocast():
            found = token_log_probs(
                hidden.flatten(0, 1),
                model.output_weight,
                batch.labels.flatten(),
                temperature=self._section.temperature,
            )
        return found.view(batch.labels.shape)

    @torch.no_grad()
    def frozen(self, compute: Callable[[Batch], Tensor], batch: Batch) -> Tensor:
        """What `compute` gives, `[N, T]` on the CPU, for all rows of a rollout, a micro-batch at a time."""
        size, device = self._context.recipe.micro_batch_size, self.model.device
        parts = [
            compute(Batch(*part).to(device)).float().cpu()
            for part in zip(
                batch.input_ids.split(size), batch.labels.split(size), batch.document_ids.split(size), strict=True
            )
        ]
        return torch.cat(parts)

    def step_metrics(self, batch: ExperienceBatch, per_token: dict[str, Tensor]) -> dict[str, Tensor]:
        """Means over the tokens of `batch` and the metrics of its rollout, as sums over its items."""
        assert self._experience is not None
        mask, items = batch.fields["mask"], batch.num_items
        metrics = {
            name: (value.detach().float() * mask).sum() / mask.sum() * items for name, value in per_token.items()
        }
        rollout = {
            name: torch.tensor(value * items, device=mask.device) for name, value in self._experience.metrics.items()
        }
        return metrics | rollout

    def _gather(self, number: int) -> Experience:
        """Rollout `number`, judged and ready to learn from."""
        indices = self._sampler.indices(number)
        prompts = [self._prompts.prompts[index] for index in indices for _ in range(self._group_size)]
        seeds = [completion_seed(self._context.recipe.seed, number, index) for index in range(len(prompts))]
        rollout = self._draw(prompts, seeds, self._section.temperature)
        rewards = self._reward(rollout)
        penalised = rewards - self._section.missing_eos_penalty * ~rollout.is_complete
        batch, mask = rollout.batch(), rollout.mask
        log_probs = self.frozen(lambda part: self.token_log_probs(self.model, part), batch)
        tokens = float(mask.sum())
        metrics = {
            "reward": float(rewards.mean()),
            "reward_std": float(rewards.std(correction=0)),
            "completion_length": tokens / len(mask),
            "complete": float(rollout.is_complete.float().mean()),
            "entropy": -float(log_probs.sum()) / tokens,
            "generator_error": float((log_probs - rollout.log_probs).abs().max()),
        }
        reference_log_probs = None
        if self._reference is not None:
            reference = self._reference
            reference_log_probs = self.frozen(lambda part: self.token_log_probs(reference, part), batch)
            metrics["kl"] = float((log_probs - reference_log_probs).sum(dim=1).mean())
        fields, more = self.learn_from(rollout, penalised, log_probs, reference_log_probs)
        fields |= {"mask": mask, "weights": token_weights(mask, self._aggregation, self._section.max_new_tokens)}
        return Experience(batch, fields, metrics | more, items_are_tokens=self._aggregation == "token_mean")

    def _draw(self, prompts: Sequence[Prompt], seeds: Sequence[int], temperature: float) -> Rollout:
        tokenizer = self._context.tokenizer
        completions = self._generator.generate(
            [prompt.token_ids for prompt in prompts],
            seeds,
            max_new_tokens=self._section.max_new_tokens,
            temperature=temperature,
        )
        texts = [
            tokenizer.decode(completion.token_ids[:-1] if completion.is_complete else completion.token_ids)
            for completion in completions
        ]
        return make_rollout(prompts, completions, texts, self._context.recipe.data.sequence_length)

    def _read_prompts(self, sources: Sequence[Source]) -> PromptSet:
        recipe = self._context.recipe
        longest = recipe.data.sequence_length + 1 - self._section.max_new_tokens
        return read_prompts(sources, recipe.data.root, self._context.tokenizer, longest, recipe.seed)

    def _flops_per_token(self) -> float:
        """Those of the policy, and of all that computes a rollout shared among the epochs that learn from it."""
        length = self._context.recipe.data.sequence_length
        training = self.model.decoder.flops_per_token(length)
        forward = training / 3 * (2 + (self._reference is not None))
        if self.scorer is not None:
            forward += self.scorer.flops_per_token(length) / 3
        return training + forward / self._epochs

    def _load_reward_model(self, directory: str) -> RewardModel:
        if tokenizer_fingerprint(directory) != tokenizer_fingerprint(self._context.tokenizer_directory):
            raise ConfigError(f"reward_model: {directory} has another tokenizer or chat template than the policy")
        return load_reward_model(directory, dtype=torch.float32).requires_grad_(False)

    def _sizes(self) -> list[int]:
        return [self._section.prompts, self._group_size, self._epochs]

    def _check_sizes(self) -> None:
        recipe = self._context.recipe
        if self._context.mesh is not None:
            raise ConfigError(f"parallel: {recipe.objective} runs in one process, that of its engine")
        if self._rollout_size % recipe.batch_size:
            raise ConfigError(
                f"batch_size: the {self._rollout_size} completions of a rollout are not a multiple of it "
                f"({recipe.batch_size})"
            )
        longest = self.model.decoder.config.max_position_embeddings
        if not self._section.max_new_tokens < recipe.data.sequence_length <= longest:
            raise ConfigError(
                f"data.sequence_length: must hold a prompt and rollout.max_new_tokens "
                f"({self._section.max_new_tokens}), and be at most the model's {longest}"
            )
