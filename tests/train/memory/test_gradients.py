"""Every policy computes what plain autograd computes."""

from __future__ import annotations

import copy

import pytest
import torch
from tests.train.memory.conftest import LAYOUTS, decoder, packed_rows
from torch import Tensor, nn

from kilonova.core.errors import ConfigError
from kilonova.models.adapter import AdapterConfig, attach_adapter
from kilonova.models.decoder.model import Decoder
from kilonova.train.memory import pointwise
from kilonova.train.memory.policy import apply_memory_policy
from kilonova.train.memory.section import MemoryPolicy

LONG = 10**6
"""Rows so long that multiplying the output projection twice costs nothing."""
VARIANTS: dict[str, tuple[MemoryPolicy, int | None]] = {
    "selective": ("selective", None),
    "full": ("full", None),
    "ssc": ("ssc", None),
    "ssc8": ("ssc8", None),
    "ssc-o_proj": ("ssc", LONG),
    "ssc8-o_proj": ("ssc8", LONG),
}
_LENGTH = 40


def gradients(model: Decoder, *, autocast: bool = False) -> tuple[Tensor, dict[str, Tensor | None]]:
    """Logits of packed rows, and the gradients of all parameters for a random direction of them."""
    ids, documents = packed_rows(_LENGTH)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        logits = model(ids, document_ids=documents)
    direction = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1))
    (logits * direction.to(logits.dtype)).sum().backward()
    return logits.detach(), {name: parameter.grad for name, parameter in model.named_parameters()}


def difference(found: dict[str, Tensor | None], expected: dict[str, Tensor | None]) -> float:
    """The Euclidean distance of two sets of gradients over the length of the second."""
    assert found.keys() == expected.keys()
    error = length = 0.0
    for name, right in expected.items():
        left = found[name]
        assert (left is None) == (right is None), name
        if left is not None and right is not None:
            error += float((left.double() - right.double()).square().sum())
            length += float(right.double().square().sum())
    return (error / length) ** 0.5


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_in_float32(layout: str) -> None:
    logits, expected = gradients(decoder(layout))
    for variant, (policy, length) in VARIANTS.items():
        model = decoder(layout)
        apply_memory_policy(model, policy, sequence_length=length)
        found_logits, found = gradients(model)
        torch.testing.assert_close(found_logits, logits, rtol=1e-5, atol=1e-5, msg=variant)
        assert difference(found, expected) < (1e-2 if policy == "ssc8" else 2e-6), variant
        for name, gradient in found.items():
            assert gradient is None or gradient.dtype == dict(model.named_parameters())[name].dtype


@pytest.mark.parametrize("layout", ["qwen2", "qwen3", "qwen3_moe-mixed"])
def test_rounding_of_autocast_is_not_made_worse(layout: str) -> None:
    _, exact = gradients(decoder(layout))
    _, plain = gradients(decoder(layout), autocast=True)
    for variant, (policy, length) in VARIANTS.items():
        model = decoder(layout)
        apply_memory_policy(model, policy, sequence_length=length)
        _, found = gradients(model, autocast=True)
        # Independent errors add by squares; the choice of experts jumps where two are close.
        own = 1e-2 if policy == "ssc8" else 0.0
        assert difference(found, exact) < 1.2 * (difference(plain, exact) ** 2 + own**2) ** 0.5, variant


@pytest.mark.parametrize("policy", ["selective", "full", "ssc", "ssc8"])
def test_frozen_parameters_get_no_gradient(policy: MemoryPolicy) -> None:
    def model() -> Decoder:
        model = decoder("qwen3_moe-mixed")
        for name, parameter in model.named_parameters():
            parameter.requires_grad_("k_proj" in name or "down_proj" in name)
        return model

    _, expected = gradients(model())
    changed = model()
    apply_memory_policy(changed, policy)
    _, found = gradients(changed)
    assert sum(gradient is not None for gradient in expected.values()) == 4
    assert difference(found, expected) < (1e-2 if policy == "ssc8" else 2e-6)


@pytest.mark.parametrize("policy", ["full", "ssc"])
def test_a_copy_has_weights_of_its_own(policy: MemoryPolicy) -> None:
    """Reinforcement learning copies the trained decoder to have a reference."""
    model = decoder("qwen3")
    apply_memory_policy(model, policy)
    ids, documents = packed_rows(_LENGTH)
    with torch.no_grad():
        before = model(ids, document_ids=documents)
        reference = copy.deepcopy(model)
        for parameter in model.parameters():
            parameter.mul_(0.5)
        assert torch.equal(reference(ids, document_ids=documents), before)
        assert not torch.allclose(model(ids, document_ids=documents), before)


def test_names_of_parameters_stay() -> None:
    model = decoder("qwen3")
    names = list(model.state_dict())
    apply_memory_policy(model, "ssc")
    assert list(model.state_dict()) == names


def test_adapters_are_refused_where_their_layers_would_be_passed_over() -> None:
    model = decoder("llama")
    attach_adapter(model, AdapterConfig(rank=2), torch.Generator().manual_seed(0))
    for policy in ("ssc", "ssc8"):
        with pytest.raises(ConfigError, match=r"q_proj.*use none, selective or full"):
            apply_memory_policy(model, policy)
    _, expected = gradients(copy.deepcopy(model))
    for policy in ("selective", "full"):
        changed = copy.deepcopy(model)
        apply_memory_policy(changed, policy)
        assert difference(gradients(changed)[1], expected) < 2e-6


@pytest.mark.parametrize(("size", "block"), [(1, 1), (32, 32), (50, 25), (80, 20), (96, 32)])
def test_int8_codes_are_within_half_a_step(size: int, block: int) -> None:
    values = torch.randn(7, 3, size, generator=torch.Generator().manual_seed(0)) * 10
    values[2, 1] = 0
    codes, largest = pointwise.quantize(values)
    assert codes.dtype == torch.int8
    assert codes.shape == values.shape
    assert largest.shape == (7, 3, size // block)
    step = largest.repeat_interleave(block, dim=-1) / 127
    error = (pointwise.dequantize(codes, largest) - values).abs()
    assert bool((error <= 0.5001 * step).all())


def test_pointwise_backward_formulas() -> None:
    """Against autograd of the plain modules, in float64."""
    generator = torch.Generator().manual_seed(0)
    gate, up, grad = (torch.randn(5, 6, dtype=torch.float64, generator=generator, requires_grad=True) for _ in range(3))
    product = nn.functional.silu(gate) * up
    expected = torch.autograd.grad(product, (gate, up), grad)
    found_product, *found = pointwise.swiglu_backward(grad, gate, up)
    torch.testing.assert_close(found_product, product)
    torch.testing.assert_close(tuple(found), expected)
    x, weight, grad = gate, up[0].detach().requires_grad_(), grad.detach()
    normed = x / (x.square().mean(dim=-1, keepdim=True) + 1e-6).sqrt() * weight
    expected = torch.autograd.grad(normed, (x, weight), grad)
    torch.testing.assert_close(pointwise.rms_norm_backward(grad, x, weight, 1e-6), expected)
