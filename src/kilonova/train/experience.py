"""Completions as tensors to learn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kilonova.core.types import IGNORE_INDEX
from kilonova.data.packing import Batch
from kilonova.data.prompts import Prompt
from kilonova.train.rollout import Completion


@dataclass(frozen=True)
class Rollout:
    """Prompts and their completions, one a row.

    `tokens` int64 `[N, T + 1]` holds prompt, completion and padding. All that is one value a token is `[N, T]`: column
    `t` belongs to token `t + 1`, as a label does to its input. `mask` float32 `[N, T]` is 1 on the completions' tokens,
    `log_probs` those of the generator, and `is_complete` bool `[N]`.
    """

    prompts: list[Prompt]
    texts: list[str]
    tokens: Tensor
    document_ids: Tensor
    mask: Tensor
    log_probs: Tensor
    is_complete: Tensor

    @property
    def lengths(self) -> Tensor:
        """Tokens of each completion, float32 `[N]`."""
        return self.mask.sum(dim=1)

    def batch(self) -> Batch:
        """The rows as a model reads them."""
        labels = torch.where(self.mask > 0, self.tokens[:, 1:], IGNORE_INDEX)
        return Batch(self.tokens[:, :-1], labels, self.document_ids[:, :-1])

    def last_positions(self) -> Tensor:
        """1 at the last token of each completion, float32 `[N, T]`."""
        later = self.mask.flip(1).cumsum(1).flip(1)
        return self.mask * (later == 1)


def make_rollout(
    prompts: Sequence[Prompt], completions: Sequence[Completion], texts: Sequence[str], sequence_length: int
) -> Rollout:
    """Prompts with their completions, padded to rows of `sequence_length + 1` tokens."""
    count = len(prompts)
    tokens = torch.zeros(count, sequence_length + 1, dtype=torch.long)
    documents = torch.full((count, sequence_length + 1), -1, dtype=torch.long)
    mask, log_probs = torch.zeros(count, sequence_length), torch.zeros(count, sequence_length)
    for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        start = len(prompt.token_ids)
        end = start + len(completion.token_ids)
        tokens[row, :end] = torch.tensor([*prompt.token_ids, *completion.token_ids])
        documents[row, :end] = 0
        mask[row, start - 1 : end - 1] = 1
        log_probs[row, start - 1 : end - 1] = torch.tensor(completion.log_probs)
    is_complete = torch.tensor([completion.is_complete for completion in completions])
    return Rollout(list(prompts), list(texts), tokens, documents, mask, log_probs, is_complete)


@dataclass(frozen=True)
class ExperienceBatch:
    """Some rows of an experience, and the items their loss is summed over."""

    batch: Batch
    fields: dict[str, Tensor]
    num_items: int

    def to(self, device: torch.device) -> ExperienceBatch:
        fields = {name: value.to(device) for name, value in self.fields.items()}
        return ExperienceBatch(self.batch.to(device), fields, self.num_items)


@dataclass(frozen=True)
class Experience:
    """A rollout with what the loss needs: float32 `fields` `[N, T]` on the CPU, `mask` and `weights` among them.

    `metrics` describe the rollout as a whole. `items_are_tokens` is whether the loss is summed over tokens, or else
    over completions.
    """

    batch: Batch
    fields: dict[str, Tensor]
    metrics: dict[str, float]
    items_are_tokens: bool

    def __len__(self) -> int:
        return len(self.batch.input_ids)

    def rows(self, indices: Sequence[int]) -> ExperienceBatch:
        """The micro-batch of these rows."""
        at = torch.tensor(indices)
        batch = Batch(self.batch.input_ids[at], self.batch.labels[at], self.batch.document_ids[at])
        fields = {name: value[at] for name, value in self.fields.items()}
        items = int(fields["mask"].sum()) if self.items_are_tokens else len(indices)
        return ExperienceBatch(batch, fields, items)

    def state_dict(self) -> dict[str, Any]:
        batch = self.batch
        return {
            "batch": [batch.input_ids, batch.labels, batch.document_ids],
            "fields": self.fields,
            "metrics": self.metrics,
            "items_are_tokens": self.items_are_tokens,
        }

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> Experience:
        return cls(Batch(*state["batch"]), state["fields"], state["metrics"], state["items_are_tokens"])
