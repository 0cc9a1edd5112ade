"""Next-token prediction, for pretraining and supervised fine-tuning alike (they differ in their data)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from kilonova.core.types import IGNORE_INDEX
from kilonova.data.packing import Batch
from kilonova.nn.cross_entropy import linear_cross_entropy


def language_model_loss(
    hidden_states: Callable[..., Tensor], output_weight: Tensor, batch: Batch, compiled: bool
) -> Tensor:
    """Cross-entropy summed over the batch's targets, in nats (a float32 scalar).

    `hidden_states` is a decoder's method of that name, compiled or not; `output_weight` `[vocab, hidden]` its output
    projection.
    """
    hidden = hidden_states(batch.input_ids, document_ids=batch.document_ids)
    return linear_cross_entropy(hidden.flatten(0, 1), output_weight, batch.labels.flatten(), compiled=compiled)


def num_targets(batch: Batch) -> int:
    """How many positions of the batch take a loss."""
    return int((batch.labels != IGNORE_INDEX).sum())
