"""Distillation losses against the plain formulas in float64 and against TRL's."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from kilonova.core.types import IGNORE_INDEX
from kilonova.nn.distillation import (
    DistillationLoss,
    DistillationSums,
    linear_distillation,
    linear_top_k_distillation,
    top_k_log_probs,
)

N, HIDDEN, TEACHER_HIDDEN, VOCAB = 23, 8, 12, 31
LOSSES = [
    DistillationLoss(beta=beta, temperature=temperature, hard_weight=hard_weight)
    for beta, temperature, hard_weight in [(0, 1, 0), (0, 2.5, 0.3), (1, 1, 0.5), (1, 2, 0), (0.5, 1, 0), (0.1, 3, 0.9)]
]


def inputs() -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden, weight, teacher_hidden, teacher_weight = (
        torch.randn(shape, generator=generator)
        for shape in ((N, HIDDEN), (VOCAB, HIDDEN), (N, TEACHER_HIDDEN), (VOCAB, TEACHER_HIDDEN))
    )
    labels = torch.randint(VOCAB, (N,), generator=generator)
    labels[3:7] = IGNORE_INDEX
    return hidden.requires_grad_(), weight.requires_grad_(), teacher_hidden, teacher_weight, labels


def plain(student: Tensor, teacher: Tensor, labels: Tensor, loss: DistillationLoss, top_k: int | None = None) -> Tensor:
    """The formulas written down, in float64, from logits; with `top_k`, over that many tokens and their rest."""
    kept = labels != IGNORE_INDEX
    student, teacher = student.double()[kept], teacher.double()[kept]
    p, q = (student / loss.temperature).softmax(-1), (teacher / loss.temperature).softmax(-1)
    if top_k is not None:
        indices = q.topk(top_k).indices
        p, q = (torch.cat([x.gather(1, indices), 1 - x.gather(1, indices).sum(1, keepdim=True)], 1) for x in (p, q))
    if loss.beta in (0, 1):
        a, b = (q, p) if loss.beta == 0 else (p, q)
        divergence = (a * (a / b).log()).sum()
    else:
        mixture = loss.beta * q + (1 - loss.beta) * p
        divergence = loss.beta * (q * (q / mixture).log()).sum() + (1 - loss.beta) * (p * (p / mixture).log()).sum()
    hard = cross_entropy(student, labels[kept], reduction="sum")
    return (1 - loss.hard_weight) * loss.temperature**2 * divergence + loss.hard_weight * hard


def assert_equals_plain(sums: DistillationSums, expected: Tensor, hidden: Tensor, weight: Tensor) -> None:
    """The loss and its gradients times 3, as the trainer scales losses."""
    (3 * expected).backward()
    wanted = hidden.grad, weight.grad
    hidden.grad = weight.grad = None
    (3 * sums.loss).backward()
    torch.testing.assert_close(sums.loss.double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(hidden.grad, wanted[0], rtol=1e-4, atol=2e-5)
    torch.testing.assert_close(weight.grad, wanted[1], rtol=1e-4, atol=5e-5)


@pytest.mark.parametrize("loss", LOSSES, ids=str)
@pytest.mark.parametrize("chunk_size", [5, 1024])
def test_loss_and_gradients_are_those_of_the_formula(loss: DistillationLoss, chunk_size: int) -> None:
    hidden, weight, teacher_hidden, teacher_weight, labels = inputs()
    expected = plain(hidden @ weight.t(), teacher_hidden @ teacher_weight.t(), labels, loss)
    sums = linear_distillation(hidden, weight, teacher_hidden, teacher_weight, labels, loss, chunk_size=chunk_size)
    assert_equals_plain(sums, expected, hidden, weight)


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_parts_and_agreement(loss: DistillationLoss) -> None:
    hidden, weight, teacher_hidden, teacher_weight, labels = inputs()
    student, teacher = hidden @ weight.t(), teacher_hidden @ teacher_weight.t()
    sums = linear_distillation(hidden, weight, teacher_hidden, teacher_weight, labels, loss)
    soft = plain(student, teacher, labels, replace(loss, hard_weight=0)) / loss.temperature**2
    torch.testing.assert_close(sums.divergence.double(), soft, rtol=1e-5, atol=1e-5)
    hard = cross_entropy(student.double(), labels, reduction="sum", ignore_index=IGNORE_INDEX)
    torch.testing.assert_close(sums.cross_entropy.double(), hard, rtol=1e-5, atol=1e-5)
    agree = (student.argmax(-1) == teacher.argmax(-1))[labels != IGNORE_INDEX].sum()
    assert sums.agreement == agree
    assert not sums.agreement.requires_grad


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_divergence_is_trls(beta: float, temperature: float) -> None:
    from trl.experimental.gkd import GKDTrainer

    hidden, weight, teacher_hidden, teacher_weight, labels = inputs()
    student, teacher = hidden @ weight.t(), teacher_hidden @ teacher_weight.t()
    trl = GKDTrainer.generalized_jsd_loss(
        student[None], teacher[None], labels[None], beta=beta, temperature=temperature, reduction="sum"
    )
    sums = linear_distillation(
        hidden, weight, teacher_hidden, teacher_weight, labels, DistillationLoss(beta=beta, temperature=temperature)
    )
    torch.testing.assert_close(sums.divergence, trl, rtol=1e-5, atol=1e-5)
    # TRL leaves out the factor of the squared temperature.
    expected = torch.autograd.grad(trl * temperature**2, [hidden, weight])
    found = torch.autograd.grad(sums.loss, [hidden, weight])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("loss", LOSSES, ids=str)
@pytest.mark.parametrize("k", [1, 6, VOCAB - 1])
def test_top_k_is_the_formula_over_k_tokens_and_their_rest(loss: DistillationLoss, k: int) -> None:
    hidden, weight, teacher_hidden, teacher_weight, labels = inputs()
    indices, log_probs = top_k_log_probs(teacher_hidden, teacher_weight, k, loss.temperature, chunk_size=5)
    assert indices.shape == (N, k)
    assert log_probs.shape == (N, k + 1)
    torch.testing.assert_close(log_probs.exp().sum(1), torch.ones(N))
    expected = plain(hidden @ weight.t(), teacher_hidden @ teacher_weight.t(), labels, loss, top_k=k)
    sums = linear_top_k_distillation(hidden, weight, indices, log_probs, labels, loss, chunk_size=5)
    assert_equals_plain(sums, expected, hidden, weight)


@pytest.mark.parametrize("beta", [0.0, 0.4, 1.0])
def test_top_k_is_trls_with_a_tail_bucket(beta: float) -> None:
    from trl.experimental.sdpo.loss_utils import add_tail_bucket, compute_divergence

    hidden, weight, teacher_hidden, teacher_weight, labels = inputs()
    indices, log_probs = top_k_log_probs(teacher_hidden, teacher_weight, 6)
    student = add_tail_bucket((hidden @ weight.t()).log_softmax(-1).gather(1, indices))
    teacher = add_tail_bucket((teacher_hidden @ teacher_weight.t()).log_softmax(-1).gather(1, indices))
    trl = compute_divergence(student, teacher, beta)[labels != IGNORE_INDEX].sum()
    sums = linear_top_k_distillation(hidden, weight, indices, log_probs, labels, DistillationLoss(beta=beta))
    torch.testing.assert_close(sums.loss, trl, rtol=1e-4, atol=1e-4)
    expected, found = (torch.autograd.grad(x, [hidden, weight]) for x in (trl, sums.loss))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_all_tokens_as_top_k_are_the_whole_distribution(loss: DistillationLoss) -> None:
    hidden, weight, teacher_hidden, teacher_weight, labels = inputs()
    indices, log_probs = top_k_log_probs(teacher_hidden, teacher_weight, VOCAB, loss.temperature)
    whole = linear_distillation(hidden, weight, teacher_hidden, teacher_weight, labels, loss)
    sparse = linear_top_k_distillation(hidden, weight, indices, log_probs, labels, loss)
    torch.testing.assert_close(sparse, whole, rtol=1e-5, atol=1e-5)
    grads = (torch.autograd.grad(sums.loss, [hidden, weight]) for sums in (sparse, whole))
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("k", [3, VOCAB])
@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_very_sure_models_give_finite_gradients(beta: float, k: int) -> None:
    hidden, weight, teacher_hidden, teacher_weight, labels = inputs()
    loss = DistillationLoss(beta=beta)
    sure, teacher = (100 * hidden).detach().requires_grad_(), 100 * teacher_hidden
    indices, log_probs = top_k_log_probs(teacher, teacher_weight, k)
    for sums in (
        linear_distillation(sure, weight, teacher, teacher_weight, labels, loss),
        linear_top_k_distillation(sure, weight, indices, log_probs, labels, loss),
    ):
        assert all(grad.isfinite().all() for grad in torch.autograd.grad(sums.loss, [sure, weight]))
        assert sums.loss.isfinite()


def test_a_student_equal_to_its_teacher_has_no_gradient() -> None:
    hidden, weight, *_, labels = inputs()
    for beta in (0.0, 0.5, 1.0):
        indices, log_probs = top_k_log_probs(hidden.detach(), weight.detach(), 4)
        sums = linear_top_k_distillation(hidden, weight, indices, log_probs, labels, DistillationLoss(beta=beta))
        (grad,) = torch.autograd.grad(sums.loss, [hidden])
        assert grad.abs().max() < 1e-5
        assert abs(float(sums.loss)) < 1e-4


def test_frozen_weights_and_no_grad() -> None:
    hidden, weight, teacher_hidden, teacher_weight, labels = inputs()
    weight.requires_grad_(False)
    sums = linear_distillation(hidden, weight, teacher_hidden, teacher_weight, labels, LOSSES[1])
    sums.loss.backward()
    assert weight.grad is None
    assert hidden.grad is not None
    with torch.no_grad():
        again = linear_distillation(hidden, weight, teacher_hidden, teacher_weight, labels, LOSSES[1])
    assert again.loss == sums.loss
    assert not again.loss.requires_grad


@pytest.mark.slow
def test_compiled_equals_eager() -> None:
    hidden, weight, teacher_hidden, teacher_weight, labels = inputs()
    indices, log_probs = top_k_log_probs(teacher_hidden, teacher_weight, 6, 2.5)
    for function, teacher in (
        (linear_distillation, (teacher_hidden, teacher_weight)),
        (linear_top_k_distillation, (indices, log_probs)),
    ):
        eager = function(hidden, weight, *teacher, labels, LOSSES[1])
        compiled = function(hidden, weight, *teacher, labels, LOSSES[1], compiled=True)
        torch.testing.assert_close(compiled, eager, rtol=1e-5, atol=1e-5)
        grads = (torch.autograd.grad(sums.loss, [hidden, weight]) for sums in (compiled, eager))
        torch.testing.assert_close(*grads, rtol=1e-5, atol=1e-5)


def test_bfloat16_is_close_to_float32() -> None:
    hidden, weight, teacher_hidden, teacher_weight, labels = inputs()
    exact = linear_distillation(hidden, weight, teacher_hidden, teacher_weight, labels, LOSSES[1])
    with torch.autocast("cpu", torch.bfloat16):
        rounded = linear_distillation(hidden, weight, teacher_hidden, teacher_weight, labels, LOSSES[1])
    assert rounded.loss.dtype == torch.float32
    torch.testing.assert_close(rounded.loss, exact.loss, rtol=0.02, atol=0)
    (grad,) = torch.autograd.grad(rounded.loss, [weight])
    assert grad.dtype == torch.float32
