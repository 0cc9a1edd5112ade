"""Distillation losses fused with the output projection: what a student's logits lack of a teacher's distribution."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kilonova.core.types import IGNORE_INDEX
from kilonova.nn.compile import compile_lazily


@dataclass(frozen=True)
class DistillationLoss:
    """`hard_weight` parts of cross-entropy with the labels, the rest divergence from the teacher.

    Both models' logits are divided by `temperature` for the divergence, which is multiplied by its square so that its
    gradients keep their size (arXiv 1503.02531, section 2). `beta` 0 is the forward divergence KL(teacher || student),
    1 the reverse one; between them it is the generalised Jensen-Shannon divergence (arXiv 2306.13649, equation 1).
    """

    beta: float = 0.0
    temperature: float = 1.0
    hard_weight: float = 0.0


class DistillationSums(NamedTuple):
    """Float32 scalars, summed over the positions with a label: `loss`, which alone has gradients; its parts
    `divergence` (before the factor of the squared temperature) and `cross_entropy`, in nats; and `agreement`, at how
    many positions student and teacher find the same token likeliest.
    """

    loss: Tensor
    divergence: Tensor
    cross_entropy: Tensor
    agreement: Tensor


def linear_distillation(
    hidden: Tensor,
    weight: Tensor,
    teacher_hidden: Tensor,
    teacher_weight: Tensor,
    labels: Tensor,
    loss: DistillationLoss,
    *,
    chunk_size: int = 1024,
    compiled: bool = False,
) -> DistillationSums:
    """The loss of student logits `hidden @ weight.T` against teacher logits, with neither ever whole.

    `hidden` is `[N, hidden]`, `weight` `[vocab, hidden]`, the teacher's the same up to its own hidden size; `labels`
    is int64 `[N]` with `IGNORE_INDEX` where no loss is taken. Logits of both exist for `chunk_size` positions at a
    time. Gradients reach `hidden` and `weight` alone. `compiled` fuses the arithmetic of a chunk with `torch.compile`.
    """
    of_chunk = _compiled_full_chunk if compiled else _full_chunk

    def chunk(logits: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
        return of_chunk(logits, teacher_hidden[rows] @ teacher_weight.t(), labels[rows], loss)

    return _apply(hidden, weight, chunk, chunk_size)


def linear_top_k_distillation(
    hidden: Tensor,
    weight: Tensor,
    indices: Tensor,
    log_probs: Tensor,
    labels: Tensor,
    loss: DistillationLoss,
    *,
    chunk_size: int = 1024,
    compiled: bool = False,
) -> DistillationSums:
    """As `linear_distillation`, for a teacher known by its likeliest tokens alone, as `top_k_log_probs` gives them.

    All other tokens count as one outcome, whose log-probability is the last of `log_probs`: the divergence is that of
    the two models' distributions over `k + 1` outcomes. It never exceeds the whole one, and is it for k = vocab.
    Unlike with the k renormalised, a student equal to the teacher is at its minimum, and the mass that it gives to
    the other tokens is learnt (the ghost token of arXiv 2503.16870). `loss.temperature` must be that of `log_probs`.
    """
    of_chunk = _compiled_top_k_chunk if compiled else _top_k_chunk

    def chunk(logits: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
        return of_chunk(logits, indices[rows].long(), log_probs[rows].float(), labels[rows], loss)

    return _apply(hidden, weight, chunk, chunk_size)


@torch.no_grad()
def top_k_log_probs(
    hidden: Tensor, weight: Tensor, k: int, temperature: float = 1.0, *, chunk_size: int = 1024
) -> tuple[Tensor, Tensor]:
    """The `k` likeliest tokens under `softmax(hidden @ weight.T / temperature)`, and their log-probabilities.

    Returns int64 `[N, k]`, likeliest first, and float32 `[N, k + 1]`, of which the last is that of all other tokens
    together; for k = vocab there are none, and it is left out.
    """
    chunks = []
    for rows in hidden.split(chunk_size):
        log_probs = ((rows @ weight.t()).float() / temperature).log_softmax(dim=-1)
        indices = log_probs.topk(k, dim=-1).indices
        chunks.append((indices, _outcomes(log_probs, indices)))
    return torch.cat([indices for indices, _ in chunks]), torch.cat([outcomes for _, outcomes in chunks])


class _FusedLinearLoss(torch.autograd.Function):
    """Both gradients are computed in the forward pass, chunk by chunk, so that logits exist for one chunk at a time."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        chunk: Callable[[Tensor, slice], tuple[Tensor, Tensor]],
        chunk_size: int,
    ) -> tuple[Tensor, Tensor]:
        needs_hidden, needs_weight = ctx.needs_input_grad[:2]
        grad_hidden = torch.empty_like(hidden) if needs_hidden else None
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if needs_weight else None
        sums = torch.zeros(4, dtype=torch.float32, device=hidden.device)
        for start in range(0, hidden.shape[0], chunk_size):
            rows = slice(start, start + chunk_size)
            chunk_sums, grad_logits = chunk(hidden[rows] @ weight.t(), rows)
            sums += chunk_sums
            if grad_hidden is not None:
                grad_hidden[rows] = grad_logits @ weight
            if grad_weight is not None:
                grad_weight += grad_logits.t() @ hidden[rows]
        ctx.save_for_backward(grad_hidden, None if grad_weight is None else grad_weight.to(weight.dtype))
        loss, metrics = sums[0].clone(), sums[1:].clone()
        ctx.mark_non_differentiable(metrics)
        return loss, metrics

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        grads = (None if grad is None else grad * grad_outputs[0] for grad in ctx.saved_tensors)
        return *grads, None, None


def _apply(
    hidden: Tensor, weight: Tensor, chunk: Callable[[Tensor, slice], tuple[Tensor, Tensor]], chunk_size: int
) -> DistillationSums:
    if not torch.is_grad_enabled():
        hidden, weight = hidden.detach(), weight.detach()
    loss, metrics = _FusedLinearLoss.apply(hidden, weight, chunk, chunk_size)
    return DistillationSums(loss, *metrics)


def _full_chunk(
    logits: Tensor, teacher_logits: Tensor, labels: Tensor, loss: DistillationLoss
) -> tuple[Tensor, Tensor]:
    log_student = (logits.float() / loss.temperature).log_softmax(dim=-1)
    log_teacher = (teacher_logits.float() / loss.temperature).log_softmax(dim=-1)
    divergence, weighted = _divergence(log_teacher, log_student, loss.beta)
    gradient = weighted - log_student.exp() * weighted.sum(dim=-1, keepdim=True)
    return _mixed(logits, labels, divergence, gradient, teacher_logits.argmax(dim=-1), loss)


def _top_k_chunk(
    logits: Tensor, indices: Tensor, log_teacher: Tensor, labels: Tensor, loss: DistillationLoss
) -> tuple[Tensor, Tensor]:
    k = indices.shape[1]
    log_student = (logits.float() / loss.temperature).log_softmax(dim=-1)
    outcomes = _outcomes(log_student, indices)
    divergence, weighted = _divergence(log_teacher, outcomes, loss.beta)
    # A token that is no outcome of its own takes part in the gradient of its outcome by its share of it.
    shares = (
        (log_student - outcomes[:, k:]).exp() * weighted[:, k:] if k < logits.shape[1] else torch.zeros_like(logits)
    )
    gradient = shares.float().scatter(1, indices, weighted[:, :k])
    gradient = gradient - log_student.exp() * weighted.sum(dim=-1, keepdim=True)
    return _mixed(logits, labels, divergence, gradient, indices[:, 0], loss)


def _outcomes(log_probs: Tensor, indices: Tensor) -> Tensor:
    """Log-probabilities of the tokens at `indices` `[N, k]` and, if there are others, of all others together."""
    named = log_probs.gather(1, indices)
    if indices.shape[1] == log_probs.shape[1]:
        return named
    others = log_probs.scatter(1, indices, -torch.inf).logsumexp(dim=-1, keepdim=True)
    return torch.cat([named, others], dim=-1)


def _divergence(log_teacher: Tensor, log_student: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """Divergence `[N]` of distributions `[N, outcomes]`, and `p * dD/dp` for each probability p of the student's.

    The latter holds up to a multiple of p, which a softmax has no gradient for.
    """
    student, teacher = log_student.exp(), log_teacher.exp()
    if beta == 0:
        return (teacher * (log_teacher - log_student)).sum(dim=-1), -teacher
    if beta == 1:
        terms = student * (log_student - log_teacher)
        return terms.sum(dim=-1), terms
    log_mixture = torch.logaddexp(log_teacher + math.log(beta), log_student + math.log1p(-beta))
    terms = (1 - beta) * student * (log_student - log_mixture)
    return (beta * teacher * (log_teacher - log_mixture) + terms).sum(dim=-1), terms


def _mixed(
    logits: Tensor,
    labels: Tensor,
    divergence: Tensor,
    gradient: Tensor,
    teacher_choice: Tensor,
    loss: DistillationLoss,
) -> tuple[Tensor, Tensor]:
    """Sums of a chunk, and the gradient of the first with respect to the logits, in the logits' dtype."""
    kept = labels != IGNORE_INDEX
    target = labels.clamp_min(0)[:, None]
    log_probs = logits.float().log_softmax(dim=-1)
    divergence = (divergence * kept).sum()
    cross_entropy = -(log_probs.gather(1, target).squeeze(1) * kept).sum()
    agreement = ((log_probs.argmax(dim=-1) == teacher_choice) & kept).sum().float()
    soft_weight = (1 - loss.hard_weight) * loss.temperature**2
    total = soft_weight * divergence + loss.hard_weight * cross_entropy
    gradient = gradient * (soft_weight / loss.temperature)
    if loss.hard_weight:
        hard = log_probs.exp().scatter_add(1, target, torch.full_like(target, -1, dtype=log_probs.dtype))
        gradient = gradient + loss.hard_weight * hard
    return torch.stack([total, divergence, cross_entropy, agreement]), (gradient * kept[:, None]).to(logits.dtype)


_compiled_full_chunk = compile_lazily(_full_chunk, dynamic=False)
_compiled_top_k_chunk = compile_lazily(_top_k_chunk, dynamic=False)
