"""GPTQ: rounding a layer's weights one input at a time, each error made up for by the inputs still to come."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kilonova.nn.quantized import NumberFormat, quantize, weight_scale

DAMPING = 0.01
# A multiple of every group size, so that a group never reaches into inputs that await a block's correction.
_BLOCK = 128
_MOST_DAMPING = 1.0


@dataclass(frozen=True)
class InputStatistics:
    """What rounding needs to know of a layer's inputs, in the order in which they are rounded.

    `order` numbers the inputs, `upper` `[in, in]` is the upper Cholesky factor of the inverse Hessian in this order,
    and `importance` `[in]` the Hessian's diagonal in the layer's own order.
    """

    order: Tensor
    upper: Tensor
    importance: Tensor
    reordered: bool

    @classmethod
    def from_hessian(cls, hessian: Tensor, activation_order: bool = True, damping: float = DAMPING) -> InputStatistics:
        """From the mean of `x x^T` over inputs `x`, `[in, in]`.

        With `activation_order` the inputs with the largest squares come first. `damping` times the mean of the diagonal
        is added to the diagonal, more where the factorisation asks for it.
        """
        diagonal = hessian.diagonal().clone()
        diagonal[diagonal == 0] = 1.0
        order = torch.arange(len(diagonal), device=hessian.device)
        if activation_order:
            order = diagonal.argsort(descending=True, stable=True)
        ordered = hessian[order][:, order]
        ordered.diagonal().copy_(diagonal[order])
        mean = diagonal.mean()
        while True:
            damped = ordered + torch.diag(torch.full_like(diagonal, float(damping * mean)))
            factor, failed = torch.linalg.cholesky_ex(damped)
            if not failed:
                upper, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(factor), upper=True)
                if not failed:
                    return cls(order, upper, diagonal, activation_order)
            if damping >= _MOST_DAMPING:
                raise ValueError("the inputs' second moments are not finite or not positive")
            damping *= 10


def round_weight(
    weight: Tensor, inputs: InputStatistics, number_format: NumberFormat, group_size: int | None, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Values `[out, in]` as of `quantize`, and scales `[out, groups]` in `dtype`, for `weight` `[out, in]`.

    Algorithm 1 of arXiv 2210.17323. In the inputs' own order a group's scale is found when its first input is reached,
    from the weights as corrected so far; in another order all scales are found beforehand.
    """
    rows, columns = weight.shape
    size = group_size or columns
    corrected = weight.float()[:, inputs.order]
    scale = weight_scale(weight, number_format, group_size, importance=inputs.importance, dtype=dtype)
    rounded = torch.empty_like(corrected)
    for start in range(0, columns, _BLOCK):
        end = min(start + _BLOCK, columns)
        errors = torch.zeros(rows, end - start, device=weight.device)
        for at in range(start, end):
            group = int(inputs.order[at]) // size
            if not inputs.reordered and at % size == 0:
                ahead = slice(at, at + size)
                scale[:, group] = weight_scale(
                    corrected[:, ahead], number_format, None, importance=inputs.importance[ahead], dtype=dtype
                )[:, 0]
            column, step = corrected[:, at : at + 1], scale[:, group : group + 1]
            value = quantize(column, step, number_format).float()
            rounded[:, at : at + 1] = value
            error = (column - value * step.float()) / inputs.upper[at, at]
            corrected[:, at:end] -= error * inputs.upper[at, at:end]
            errors[:, at - start] = error[:, 0]
        corrected[:, end:] -= errors @ inputs.upper[start:end, end:]
    values = torch.empty_like(rounded)
    values[:, inputs.order] = rounded
    return values.to(torch.float8_e4m3fn if number_format == "fp8" else torch.int8), scale
