"""What a completion is worth."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import linear

from kilonova.core.errors import DataError
from kilonova.data.packing import Batch
from kilonova.models.decoder.model import Decoder
from kilonova.models.reward import RewardModel, document_rewards
from kilonova.train.experience import Rollout
from kilonova.train.placed import PlacedDecoder

RewardFunction = Callable[[Rollout], Tensor]
"""The rewards of a rollout's completions, float32 `[N]` on the CPU."""


def verifier_rewards(rollout: Rollout) -> Tensor:
    """What the prompts' own verifiers give for the completions' text."""
    rewards = []
    for prompt, text in zip(rollout.prompts, rollout.texts, strict=True):
        if prompt.verifier is None:
            raise DataError("a prompt has no verifier: use sources of format verifiable, or name a reward_model")
        rewards.append(prompt.verifier(text))
    return torch.tensor(rewards)


class PlacedScorer:
    """A model with scores for output, on the device and in the number format of the policy."""

    def __init__(self, model: RewardModel, policy: PlacedDecoder) -> None:
        self.model = model.to(policy.device)
        self._policy = policy
        self._hidden_states = (
            torch.compile(model.hidden_states, dynamic=False) if policy.compiled else model.hidden_states
        )

    def scores(self, batch: Batch) -> Tensor:
        """The score, float32 `[B, T]`, at every position of a batch that is on the device."""
        with self._policy.autocast():
            hidden = self._hidden_states(batch.input_ids, document_ids=batch.document_ids)
        # One output a position: float32 costs nothing, and bfloat16 would tie close scores.
        return linear(hidden.float(), self.model.score.weight).squeeze(-1)

    def flops_per_token(self, sequence_length: int) -> float:
        """Training FLOPs, counted as `Decoder.flops_per_token` counts them."""
        with torch.device("meta"):
            decoder = Decoder(self.model.config)
        return decoder.flops_per_token(sequence_length) - 6.0 * decoder.lm_head.weight.numel()


class RewardModelScores:
    """The scores of a reward model at the completions' last tokens, `batch_size` rows at a time."""

    def __init__(self, scorer: PlacedScorer, device: torch.device, batch_size: int) -> None:
        self._scorer = scorer
        self._device = device
        self._batch_size = batch_size

    @torch.no_grad()
    def __call__(self, rollout: Rollout) -> Tensor:
        rewards = []
        for start in range(0, len(rollout.tokens), self._batch_size):
            rows = slice(start, start + self._batch_size)
            tokens, documents = rollout.tokens[rows], rollout.document_ids[rows]
            batch = Batch(tokens, tokens, documents).to(self._device)
            rewards.append(document_rewards(self._scorer.scores(batch), batch.document_ids, 1)[:, 0].cpu())
        return torch.cat(rewards)
