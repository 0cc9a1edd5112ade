"""GPTQ against its definition in float64: optimal brain surgery with an explicit inverse at every step."""

from __future__ import annotations

import pytest
import torch

from kilonova.models.quantization.gptq import InputStatistics, round_weight
from kilonova.nn.quantized import dequantize, quantize, weight_scale

DAMPING = 0.01


def correlated_inputs(count: int, generator: torch.Generator) -> torch.Tensor:
    mixing = torch.randn(count, count, generator=generator) * torch.logspace(0, -1.5, count)
    return torch.randn(4 * count, count, generator=generator) @ mixing


def reference(weight, hessian, number_format, group_size, activation_order):
    """The values that arXiv 2210.17323's equation 2 gives, with the inverse of what is left computed afresh."""
    columns = weight.shape[1]
    size = group_size or columns
    hessian = hessian.double().clone()
    diagonal = hessian.diagonal().clone()
    hessian += DAMPING * diagonal.mean() * torch.eye(columns, dtype=torch.float64)
    order = diagonal.argsort(descending=True, stable=True) if activation_order else torch.arange(columns)
    scale = weight_scale(weight, number_format, group_size, importance=diagonal)
    corrected = weight.double().clone()
    values = torch.zeros_like(corrected)
    for place, column in enumerate(order.tolist()):
        group = column // size
        if not activation_order and column % size == 0:
            ahead = slice(column, column + size)
            scale[:, group] = weight_scale(
                corrected[:, ahead].float(), number_format, None, importance=diagonal[ahead]
            )[:, 0]
        step = scale[:, group : group + 1]
        values[:, column] = quantize(corrected[:, column : column + 1].float(), step, number_format)[:, 0].double()
        left = order[place:]
        inverse = torch.linalg.inv(hessian[left][:, left])
        error = (corrected[:, column] - values[:, column] * step[:, 0].double()) / inverse[0, 0]
        corrected[:, left] -= error[:, None] * inverse[0]
    return values, scale


@pytest.mark.parametrize("activation_order", [False, True])
@pytest.mark.parametrize(("number_format", "group_size"), [("int4", 32), ("int4", 64), ("int8", None), ("fp8", None)])
def test_rounding_is_that_of_the_definition(number_format, group_size, activation_order) -> None:
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(12, 192, generator=generator) * 0.1
    x = correlated_inputs(192, generator)
    hessian = x.t() @ x / len(x)

    values, scale = round_weight(
        weight, InputStatistics.from_hessian(hessian, activation_order), number_format, group_size, torch.float32
    )

    expected, expected_scale = reference(weight, hessian, number_format, group_size, activation_order)
    torch.testing.assert_close(scale, expected_scale, rtol=1e-3, atol=0)
    # A weight that falls on the border of two values may go either way in float32.
    assert (values.double() == expected).double().mean() > 0.99
    assert not torch.equal(values.float(), quantize(weight, scale, number_format).float())


def test_outputs_are_closer_than_with_rounding_to_nearest() -> None:
    generator = torch.Generator().manual_seed(4)
    weight = torch.randn(48, 256, generator=generator) * 0.05
    x = correlated_inputs(256, generator)
    statistics = InputStatistics.from_hessian(x.t() @ x / len(x))

    def loss(values: torch.Tensor, scale: torch.Tensor) -> float:
        return float((x @ (dequantize(values, scale, torch.float32) - weight).t()).square().mean())

    scale = weight_scale(weight, "int4", 64)
    nearest = loss(quantize(weight, scale, "int4"), scale)

    assert loss(*round_weight(weight, statistics, "int4", 64, torch.float32)) < 0.5 * nearest


@pytest.mark.parametrize("activation_order", [False, True])
def test_inputs_that_are_always_zero_do_no_harm(activation_order: bool) -> None:
    generator = torch.Generator().manual_seed(5)
    weight = torch.randn(8, 64, generator=generator)
    x = torch.randn(20, 64, generator=generator)
    x[:, 10:30] = 0.0

    statistics = InputStatistics.from_hessian(x.t() @ x / len(x), activation_order)
    values, scale = round_weight(weight, statistics, "int4", 32, torch.bfloat16)

    assert scale.dtype == torch.bfloat16
    assert torch.isfinite(dequantize(values, scale, torch.float32)).all()
    assert values.abs().max() <= 8


def test_useless_statistics_are_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        InputStatistics.from_hessian(torch.full((4, 4), float("nan")))
