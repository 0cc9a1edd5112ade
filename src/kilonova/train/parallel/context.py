"""Context parallelism: the positions of a row spread over ranks."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed._functional_collectives import (
    all_gather_single_autograd,
    all_reduce,
    wait_tensor,
)
from torch.distributed.device_mesh import DeviceMesh

from kilonova.core.errors import ConfigError


class ContextParallelAttention:
    """Packed causal attention of this rank's positions over those of all ranks.

    Keys and values are gathered whole in every layer, and their gradients summed back to where they came from. A piece
    of the row (see `local_positions`) attends to nothing behind its own end, so that its keys are cut there.
    `document_ids` `[B, T]` are those of whole rows.
    """

    def __init__(self, ranks: DeviceMesh, document_ids: Tensor) -> None:
        length = document_ids.shape[1]
        self._ranks = ranks
        self._document_ids = document_ids
        self._pieces = [
            piece.to(document_ids.device)
            for piece in local_positions(length, ranks.get_local_rank(), ranks.size()).chunk(2)
        ]
        held = torch.cat([local_positions(length, rank, ranks.size()) for rank in range(ranks.size())])
        self._order = held.argsort().to(document_ids.device)
        self._masks: dict[int | None, list[Tensor]] = {}

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, layer_index: int, sliding_window: int | None
    ) -> Tensor:
        if sliding_window not in self._masks:
            self._masks[sliding_window] = [self._mask(piece, sliding_window) for piece in self._pieces]
        gathered = all_gather_single_autograd(torch.stack((key, value)), 3, self._ranks)
        keys, values = gathered.index_select(3, self._order).unbind()
        grouped = query.shape[1] != key.shape[1]
        outputs = [
            nn.functional.scaled_dot_product_attention(
                part, keys[:, :, : mask.shape[-1]], values[:, :, : mask.shape[-1]], attn_mask=mask, enable_gqa=grouped
            )
            for part, mask in zip(query.chunk(2, dim=2), self._masks[sliding_window], strict=True)
        ]
        return torch.cat(outputs, dim=2)

    def _mask(self, piece: Tensor, sliding_window: int | None) -> Tensor:
        """What the positions of a piece see, `[B, 1, T / 2n, end]`."""
        positions = torch.arange(int(piece[-1]) + 1, device=piece.device)
        distance = piece[:, None] - positions[None, :]
        allowed = distance >= 0
        if sliding_window is not None:
            allowed = allowed & (distance < sliding_window)
        same = self._document_ids[:, piece, None] == self._document_ids[:, None, : len(positions)]
        return (allowed & same)[:, None]


def local_positions(length: int, rank: int, ranks: int) -> Tensor:
    """The positions `[length / ranks]` of a row that a rank holds: pieces `rank` and `2 * ranks - 1 - rank` of
    `2 * ranks`, which gives all ranks as many causal pairs (arXiv 2407.21783, section 3.3.2)."""
    if length % (2 * ranks):
        raise ConfigError(
            f"data.sequence_length: {length} is not a multiple of {2 * ranks}, twice the size of parallel.context"
        )
    pieces = torch.arange(length).chunk(2 * ranks)
    return torch.cat((pieces[rank], pieces[2 * ranks - 1 - rank]))


def gather_positions(hidden: Tensor, ranks: DeviceMesh) -> Tensor:
    """Hidden states `[B, T, hidden]` of whole rows from those `[B, T / ranks, hidden]` that each rank holds.

    The gradient that reaches a rank's part is the sum of what all ranks send back.
    """
    gathered = all_gather_single_autograd(hidden, 1, ranks)
    length = gathered.shape[1]
    held = torch.cat([local_positions(length, rank, ranks.size()) for rank in range(ranks.size())])
    return gathered.index_select(1, held.argsort().to(hidden.device))


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor, ranks: DeviceMesh) -> Tensor:
        ctx.ranks = ranks  # type: ignore[attr-defined]
        return wait_tensor(all_reduce(x, "sum", ranks))

    @staticmethod
    def backward(ctx: object, *grads: Tensor) -> tuple[Tensor, None]:
        return wait_tensor(all_reduce(grads[0].contiguous(), "sum", ctx.ranks)), None  # type: ignore[attr-defined]


def sum_over_context(x: Tensor, ranks: DeviceMesh) -> Tensor:
    """The sum of `x` over ranks, on all of them; its gradient is the sum of theirs."""
    return _Sum.apply(x, ranks)
