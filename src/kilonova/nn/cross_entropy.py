"""Cross-entropy fused with the output projection."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kilonova.core.types import IGNORE_INDEX


class _LinearCrossEntropy(torch.autograd.Function):
    """Both gradients are computed in the forward pass, chunk by chunk, so that logits exist for one chunk at a time."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, labels: Tensor, chunk_size: int, compiled: bool) -> Tensor:
        chunk_loss = _compiled_chunk if compiled else _chunk
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        needs_grad = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        grad_hidden = torch.empty_like(hidden) if needs_grad else None
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if needs_grad else None
        for start in range(0, hidden.shape[0], chunk_size):
            rows = slice(start, start + chunk_size)
            loss, grad_logits = chunk_loss(hidden[rows] @ weight.t(), labels[rows])
            total += loss
            if grad_hidden is not None and grad_weight is not None:
                grad_hidden[rows] = grad_logits @ weight
                grad_weight += grad_logits.t() @ hidden[rows]
        if grad_hidden is not None and grad_weight is not None:
            ctx.save_for_backward(grad_hidden, grad_weight.to(weight.dtype))
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        grad_hidden, grad_weight = ctx.saved_tensors
        (scale,) = grad_outputs
        return grad_hidden * scale, grad_weight * scale, None, None, None


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


_compiled_chunk = torch.compile(_chunk, dynamic=False)


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, labels: Tensor, *, chunk_size: int = 2048, compiled: bool = False
) -> Tensor:
    """Summed cross-entropy of `softmax(hidden @ weight.T)` against `labels`, without keeping the logits.

    `hidden` is `[N, hidden]`, `weight` `[vocab, hidden]`, `labels` `[N]` with `IGNORE_INDEX` where no loss is taken.
    Returns a float32 scalar in nats. Memory is `chunk_size * vocab` instead of `N * vocab`; the arithmetic is that of
    the plain formula (the idea of arXiv 2411.09009 and of Liger's fused linear cross-entropy). `compiled` fuses the
    softmax arithmetic of a chunk with `torch.compile`.
    """
    if not torch.is_grad_enabled():
        hidden, weight = hidden.detach(), weight.detach()
    return _LinearCrossEntropy.apply(hidden, weight, labels, chunk_size, compiled)
