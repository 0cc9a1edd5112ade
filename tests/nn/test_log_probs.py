from __future__ import annotations

import pytest
import torch

from kilonova.core.types import IGNORE_INDEX
from kilonova.nn.log_probs import sequence_log_probs, token_log_probs


def inputs(rows: int = 23, hidden: int = 16, vocab: int = 37, dtype: torch.dtype = torch.float32):
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(rows, hidden, generator=generator).to(dtype).requires_grad_()
    weight = torch.randn(vocab, hidden, generator=generator).to(dtype).requires_grad_()
    labels = torch.randint(vocab, (rows,), generator=generator)
    labels[[0, 5, rows - 1]] = IGNORE_INDEX
    return states, weight, labels, torch.randn(rows, generator=generator)


def plain(states, weight, labels, upstream, temperature=1.0):
    """Values and gradients of log_softmax in float64."""
    states, weight = (tensor.detach().double().requires_grad_() for tensor in (states, weight))
    all_log_probs = torch.log_softmax(states @ weight.t() / temperature, dim=-1)
    chosen = all_log_probs.gather(1, labels.clamp_min(0)[:, None]).squeeze(1)
    values = torch.where(labels == IGNORE_INDEX, 0.0, chosen)
    values.backward(upstream.double())
    return values.detach(), states.grad, weight.grad


@pytest.mark.parametrize("chunk_size", [1, 7, 20, 100])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_values_and_gradients_are_those_of_log_softmax(chunk_size, temperature):
    states, weight, labels, upstream = inputs()
    values = token_log_probs(states, weight, labels, chunk_size=chunk_size, temperature=temperature)
    values.backward(upstream)
    expected, states_grad, weight_grad = plain(states, weight, labels, upstream, temperature)
    assert values.dtype == torch.float32
    torch.testing.assert_close(values.double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(states.grad.double(), states_grad, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(weight.grad.double(), weight_grad, rtol=1e-5, atol=1e-5)
    assert values[0] == 0
    assert not states.grad[0].any()


def test_autocast_computes_both_passes_in_bfloat16():
    states, weight, labels, upstream = inputs()
    with torch.autocast("cpu", torch.bfloat16):
        values = token_log_probs(states, weight, labels, chunk_size=8)
    values.backward(upstream)
    half_states, half_weight = (tensor.detach().bfloat16().requires_grad_() for tensor in (states, weight))
    in_half = token_log_probs(half_states, half_weight, labels, chunk_size=8)
    in_half.backward(upstream)
    assert (values.dtype, states.grad.dtype, weight.grad.dtype) == (torch.float32,) * 3
    assert torch.equal(values, in_half)
    torch.testing.assert_close(states.grad.bfloat16(), half_states.grad, rtol=0, atol=0)
    expected, states_grad, weight_grad = plain(states, weight, labels, upstream)
    torch.testing.assert_close(values.double(), expected, rtol=2e-2, atol=5e-2)
    torch.testing.assert_close(states.grad.double(), states_grad, rtol=0.05, atol=0.1)
    torch.testing.assert_close(weight.grad.double(), weight_grad, rtol=0.05, atol=0.1)


def test_large_logits_do_not_overflow():
    states, weight, labels, upstream = inputs()
    values = token_log_probs(1000 * states, weight, labels)
    values.backward(upstream)
    expected, _, _ = plain(1000 * states, weight, labels, upstream)
    torch.testing.assert_close(values.double(), expected, rtol=1e-4, atol=1e-2)
    assert states.grad.isfinite().all()


def test_nothing_but_ignored_labels_gives_zeros():
    states, weight, labels, upstream = inputs()
    values = token_log_probs(states, weight, torch.full_like(labels, IGNORE_INDEX))
    values.backward(upstream)
    assert not values.any()
    assert not states.grad.any()
    assert not weight.grad.any()


def test_only_what_needs_a_gradient_gets_one():
    states, weight, labels, upstream = inputs()
    token_log_probs(states.detach(), weight, labels).backward(upstream)
    torch.testing.assert_close(weight.grad.double(), plain(states, weight, labels, upstream)[2], rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        assert not token_log_probs(states, weight, labels).requires_grad


def test_sequence_log_probs_sum_each_document_of_each_row():
    values = torch.tensor([[1.0, 2.0, 4.0, 8.0, 16.0], [1.0, 2.0, 4.0, 8.0, 16.0]], requires_grad=True)
    documents = torch.tensor([[0, 0, 1, -1, -1], [0, 1, 1, 2, 2]])
    sums = sequence_log_probs(values, documents, 3)
    assert sums.tolist() == [[3, 4, 0], [1, 6, 24]]
    (sums * torch.tensor([[1.0, 10.0, 100.0]])).sum().backward()
    assert values.grad.tolist() == [[1, 1, 10, 0, 0], [1, 10, 10, 100, 100]]
