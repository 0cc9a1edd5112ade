from __future__ import annotations

import pytest
import torch

from kilonova.nn.cross_entropy import IGNORE_INDEX, linear_cross_entropy


def inputs(rows: int = 23, hidden: int = 16, vocab: int = 37, dtype: torch.dtype = torch.float32):
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(rows, hidden, generator=generator).to(dtype).requires_grad_()
    weight = torch.randn(vocab, hidden, generator=generator).to(dtype).requires_grad_()
    labels = torch.randint(vocab, (rows,), generator=generator)
    labels[[0, 5, rows - 1]] = IGNORE_INDEX
    return states, weight, labels


def plain(states, weight, labels):
    """Loss and gradients of the formula as it is written, in float64."""
    states, weight = (tensor.detach().double().requires_grad_() for tensor in (states, weight))
    loss = torch.nn.functional.cross_entropy(states @ weight.t(), labels, ignore_index=IGNORE_INDEX, reduction="sum")
    loss.backward()
    return loss, states.grad, weight.grad


@pytest.mark.parametrize("chunk_size", [1, 7, 23, 100])
def test_value_and_gradients_are_those_of_the_plain_formula(chunk_size):
    states, weight, labels = inputs()
    loss = linear_cross_entropy(states, weight, labels, chunk_size=chunk_size)
    (0.3 * loss).backward()
    expected, states_grad, weight_grad = plain(states, weight, labels)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(states.grad.double(), 0.3 * states_grad, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(weight.grad.double(), 0.3 * weight_grad, rtol=1e-5, atol=1e-5)
    assert not states.grad[0].any()


def test_bfloat16_stays_near_the_plain_formula():
    states, weight, labels = inputs(dtype=torch.bfloat16)
    loss = linear_cross_entropy(states, weight, labels, chunk_size=8)
    loss.backward()
    expected, states_grad, weight_grad = plain(states, weight, labels)
    assert (loss.dtype, states.grad.dtype, weight.grad.dtype) == (torch.float32, torch.bfloat16, torch.bfloat16)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-2, atol=0)
    torch.testing.assert_close(states.grad.double(), states_grad, rtol=0.05, atol=0.1)
    torch.testing.assert_close(weight.grad.double(), weight_grad, rtol=0.05, atol=0.1)


def test_large_logits_do_not_overflow():
    states, weight, labels = inputs()
    loss = linear_cross_entropy(1000 * states, weight, labels, chunk_size=8)
    loss.backward()
    expected, _, _ = plain(1000 * states, weight, labels)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=0)
    assert states.grad.isfinite().all()


def test_nothing_but_ignored_labels_costs_nothing():
    states, weight, labels = inputs()
    loss = linear_cross_entropy(states, weight, torch.full_like(labels, IGNORE_INDEX))
    loss.backward()
    assert loss.item() == 0
    assert not states.grad.any()
    assert not weight.grad.any()


def test_only_what_needs_a_gradient_gets_one():
    states, weight, labels = inputs()
    linear_cross_entropy(states.detach(), weight, labels).backward()
    torch.testing.assert_close(weight.grad.double(), plain(states, weight, labels)[2], rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        loss = linear_cross_entropy(states, weight, labels)
    assert not loss.requires_grad
    torch.testing.assert_close(loss.double(), plain(states, weight, labels)[0].detach(), rtol=1e-6, atol=0)


def test_a_frozen_projection_gets_no_gradient():
    states, weight, labels = inputs()
    linear_cross_entropy(states, weight.requires_grad_(False), labels).backward()
    _, states_grad, _ = plain(states, weight, labels)
    assert weight.grad is None
    torch.testing.assert_close(states.grad.double(), states_grad, rtol=1e-5, atol=1e-5)
