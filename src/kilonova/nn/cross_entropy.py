"""Cross-entropy fused with the output projection."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from kilonova.core.types import IGNORE_INDEX
from kilonova.nn.compile import compile_lazily


class _LinearCrossEntropy(torch.autograd.Function):
    """Both gradients are computed in the forward pass, chunk by chunk, so that logits exist for one chunk at a time."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        labels: Tensor,
        chunk_size: int,
        compiled: bool,
        group: dist.ProcessGroup | None,
    ) -> Tensor:
        chunk_loss = _compiled_chunk if compiled else _chunk
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        needs_hidden, needs_weight = ctx.needs_input_grad[:2]
        grad_hidden = torch.empty_like(hidden) if needs_hidden else None
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if needs_weight else None
        for start in range(0, hidden.shape[0], chunk_size):
            rows = slice(start, start + chunk_size)
            logits = hidden[rows] @ weight.t()
            if group is None:
                loss, grad_logits = chunk_loss(logits, labels[rows])
            else:
                loss, grad_logits = _vocabulary_parallel_chunk(logits, labels[rows], group)
            total += loss
            if grad_hidden is not None:
                grad_hidden[rows] = grad_logits @ weight
            if grad_weight is not None:
                grad_weight += grad_logits.t() @ hidden[rows]
        if grad_hidden is not None and group is not None:
            dist.all_reduce(grad_hidden, group=group)
        ctx.save_for_backward(grad_hidden, None if grad_weight is None else grad_weight.to(weight.dtype))
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        grads = (None if grad is None else grad * grad_outputs[0] for grad in ctx.saved_tensors)
        return *grads, None, None, None, None


def _chunk(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Summed loss of a chunk, and its gradient with respect to the logits, in the logits' dtype."""
    logits32 = logits.float()
    kept = labels != IGNORE_INDEX
    target = labels.clamp_min(0)[:, None]
    log_normaliser = logits32.logsumexp(dim=-1, keepdim=True)
    losses = (log_normaliser - logits32.gather(1, target)).squeeze(1)
    gradient = (logits32 - log_normaliser).exp()
    gradient = gradient.scatter_add(1, target, torch.full_like(target, -1, dtype=gradient.dtype))
    gradient = gradient * kept[:, None]
    return (losses * kept).sum(), gradient.to(logits.dtype)


def _vocabulary_parallel_chunk(logits: Tensor, labels: Tensor, group: dist.ProcessGroup) -> tuple[Tensor, Tensor]:
    """`_chunk` of logits over this rank's part of the vocabulary: the loss over all of it, and the part's gradient."""
    logits32 = logits.float()
    kept = labels != IGNORE_INDEX
    target = labels - group.rank() * logits.shape[1]
    mine = kept & (target >= 0) & (target < logits.shape[1])
    target = (target * mine)[:, None]
    part = torch.stack((logits32.logsumexp(dim=-1), logits32.gather(1, target).squeeze(1) * mine))
    parts = [torch.empty_like(part) for _ in range(group.size())]
    dist.all_gather(parts, part, group=group)
    normalisers, targets = torch.stack(parts, dim=1)
    log_normaliser = normalisers.logsumexp(dim=0)
    losses = log_normaliser - targets.sum(dim=0)
    gradient = (logits32 - log_normaliser[:, None]).exp()
    gradient = gradient.scatter_add(1, target, -mine.to(gradient.dtype)[:, None])
    gradient = gradient * kept[:, None]
    return (losses * kept).sum(), gradient.to(logits.dtype)


_compiled_chunk = compile_lazily(_chunk, dynamic=False)


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    *,
    chunk_size: int = 2048,
    compiled: bool = False,
    vocabulary_group: dist.ProcessGroup | None = None,
) -> Tensor:
    """Summed cross-entropy of `softmax(hidden @ weight.T)` against `labels`, without keeping the logits.

    `hidden` is `[N, hidden]`, `weight` `[vocab, hidden]`, `labels` `[N]` with `IGNORE_INDEX` where no loss is taken.
    Returns a float32 scalar in nats. Memory is `chunk_size * vocab` instead of `N * vocab`; the arithmetic is that of
    the plain formula (the idea of arXiv 2411.09009 and of Liger's fused linear cross-entropy). `compiled` fuses the
    softmax arithmetic of a chunk with `torch.compile`. With a `vocabulary_group` each of its ranks gives the same
    `hidden` and `labels` and its own `weight`, an equal share of the vocabulary in the order of the ranks.
    """
    if not torch.is_grad_enabled():
        hidden, weight = hidden.detach(), weight.detach()
    return _LinearCrossEntropy.apply(hidden, weight, labels, chunk_size, compiled, vocabulary_group)
