"""What a text encoder gives, whichever it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class TextStates:
    """`states` `[B, T, hidden]`, the bool `mask` `[B, T]` of those that stand for a token, and a summary `[B, hidden]`.

    States without a token are 0; an empty text has none with one.
    """

    states: Tensor
    mask: Tensor
    pooled: Tensor


class TextEncoder(Protocol):
    """Texts to states."""

    @property
    def hidden_size(self) -> int:
        """The last dimension of the states."""
        ...

    def encode(self, texts: Sequence[str]) -> TextStates:
        """States of `texts`, as long as the longest of them."""
        ...


def masked_states(states: Tensor, mask: Tensor, pooled: Tensor | None = None) -> TextStates:
    """`states` `[B, T, hidden]` with 0 outside `mask` `[B, T]`; without `pooled` their mean stands for it."""
    states = states.masked_fill(~mask[..., None], 0)
    if pooled is None:
        pooled = states.sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
    return TextStates(states, mask, pooled)


def pad(token_ids: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids `[B, T]`, filled up with 0 on the right, and the mask `[B, T]` of those that are there."""
    length = max(map(len, token_ids), default=0)
    ids = torch.zeros(len(token_ids), length, dtype=torch.long)
    for row, tokens in zip(ids, token_ids, strict=True):
        row[: len(tokens)] = torch.tensor(tokens, dtype=torch.long)
    lengths = torch.tensor([len(tokens) for tokens in token_ids])
    return ids.to(device), (torch.arange(length) < lengths[:, None]).to(device)
