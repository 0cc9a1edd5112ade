"""Log-probabilities of given tokens, fused with the output projection."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kilonova.core.types import IGNORE_INDEX


class _TokenLogProbs(torch.autograd.Function):
    """Logits exist for one chunk at a time in either pass: the backward pass computes them again."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, labels: Tensor, chunk_size: int, temperature: float
    ) -> Tensor:
        # The backward pass runs outside autocast, and must see the numbers that the forward pass saw.
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
        kept = (labels != IGNORE_INDEX).nonzero().squeeze(1)
        result = torch.zeros(len(labels), dtype=torch.float32, device=hidden.device)
        cast_weight = weight.to(dtype)
        for rows in kept.split(chunk_size):
            logits = (hidden[rows].to(dtype) @ cast_weight.t()).float() / temperature
            result[rows] = _of_labels(logits, labels[rows]) - logits.logsumexp(dim=-1)
        ctx.save_for_backward(hidden, weight, labels, kept)
        ctx.chunk_size, ctx.temperature, ctx.dtype = chunk_size, temperature, dtype
        return result

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        hidden, weight, labels, kept = ctx.saved_tensors
        needs_hidden, needs_weight = ctx.needs_input_grad[:2]
        grad_hidden = torch.zeros_like(hidden) if needs_hidden else None
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if needs_weight else None
        cast_weight = weight.to(ctx.dtype)
        with torch.autocast(hidden.device.type, enabled=False):
            for rows in kept.split(ctx.chunk_size):
                states = hidden[rows].to(ctx.dtype)
                probabilities = ((states @ cast_weight.t()).float() / ctx.temperature).softmax(dim=-1)
                # The gradient of log p(label) with respect to the logits is one at the label, minus p.
                scale = (grad_outputs[0][rows] / ctx.temperature)[:, None]
                grad_logits = (-scale * probabilities).scatter_add_(1, labels[rows][:, None], scale).to(ctx.dtype)
                if grad_hidden is not None:
                    grad_hidden[rows] = (grad_logits @ cast_weight).to(hidden.dtype)
                if grad_weight is not None:
                    grad_weight += grad_logits.t() @ states
        return grad_hidden, None if grad_weight is None else grad_weight.to(weight.dtype), None, None, None


def _of_labels(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.gather(1, labels[:, None]).squeeze(1)


def token_log_probs(
    hidden: Tensor, weight: Tensor, labels: Tensor, *, chunk_size: int = 2048, temperature: float = 1.0
) -> Tensor:
    """Log-probability of each label under `softmax(hidden @ weight.T / temperature)`, without keeping the logits.

    `hidden` is `[N, hidden]`, `weight` `[vocab, hidden]`, `labels` int64 `[N]` with `IGNORE_INDEX` where none is asked
    for. Returns float32 `[N]` in nats, 0 where the label is ignored (those positions cost nothing). Differentiable
    once; memory is `chunk_size * vocab` in both passes, at the price of computing the logits twice.
    """
    if not torch.is_grad_enabled():
        hidden, weight = hidden.detach(), weight.detach()
    return _TokenLogProbs.apply(hidden, weight, labels, chunk_size, temperature)


def sequence_log_probs(token_log_probs: Tensor, document_ids: Tensor, num_documents: int) -> Tensor:
    """Log-probability of each document of packed rows: the sum over its positions.

    `token_log_probs` and `document_ids` are `[B, T]`; documents of a row are numbered from 0, and -1 marks padding.
    Returns `[B, num_documents]`, 0 for a number that a row lacks. Of a mask instead of log-probabilities, it gives the
    number of positions that the mask keeps in each document.
    """
    # Padding is summed into a column of its own.
    columns = torch.where(document_ids < 0, num_documents, document_ids)
    sums = token_log_probs.new_zeros(len(document_ids), num_documents + 1)
    return sums.scatter_add(1, columns, token_log_probs)[:, :-1]
