"""What a training step minimises: the seam between the trainer and everything it can train."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn


@dataclass(frozen=True)
class Loss:
    """The loss of a micro-batch: `total`, a float32 scalar summed over its items (tokens, pairs, ...).

    `metrics` are further sums over the same items, without gradients; the trainer logs them divided by the items.
    """

    total: Tensor
    metrics: dict[str, Tensor] = field(default_factory=dict)


class Objective(Protocol):
    """A loss over batches that depend on nothing but the recipe, the step and what `state_dict` holds.

    The trainer divides the summed losses of a step by the items of all its micro-batches on all ranks, so that
    accumulation, packing and data parallelism change nothing but rounding.
    """

    trained: nn.Module
    """What the optimiser moves (its parameters that require gradients) and a checkpoint holds."""
    tokens_per_step: int
    """Positions the model computes in one optimiser step, over all ranks."""
    flops_per_token: float
    """Training FLOPs of one of them, those of frozen models included."""

    def micro_batches(self, step: int) -> Sequence[Any]:
        """This rank's micro-batches of optimiser step `step` (from 0)."""
        ...

    def num_items(self, batch: Any) -> int:
        """How many items the loss of `batch` is summed over."""
        ...

    def loss(self, batch: Any) -> Loss:
        """The differentiable loss of one micro-batch."""
        ...

    def step_done(self) -> None:
        """Take note that the optimiser has moved the weights."""
        ...

    def evaluate(self) -> dict[str, float]:
        """Named results on held-out data, the same for every call on the same weights."""
        ...

    def export(self, directory: Path) -> None:
        """Write the result in its ecosystem's layout, without the tokenizer."""
        ...

    def data_record(self) -> dict[str, Any]:
        """What was learnt from, for the model card."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What the objective must remember to go on exactly (empty for most)."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...
