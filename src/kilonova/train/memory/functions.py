"""The two halves of a layer as autograd functions that keep GEMM outputs and rebuild everything between them.

A function keeps parameters as they are, not their casts, so that nothing is held twice under autocast and FSDP2 can
free and refill their storages. Gradients of parameters come in the parameters' dtype.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kilonova.nn.norm import RMSNorm
from kilonova.train.memory import pointwise


def compute_dtype(x: Tensor) -> torch.dtype:
    """The dtype in which a linear layer would multiply `x` here: autocast's, if it is on."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


class _RMSNorm(torch.autograd.Function):
    """`RMSNorm` that keeps its input only."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.eps = eps
        return pointwise.rms_norm(x, weight, eps, dtype)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        return *pointwise.rms_norm_backward(grad_outputs[0], x, weight, ctx.eps), None, None


class _RotatedHeads(torch.autograd.Function):
    """Query-key norm and rotary positions, keeping the input for the norm and nothing for the rotation."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, eps: float, cos: Tensor, sin: Tensor, dtype: torch.dtype
    ) -> Tensor:
        ctx.save_for_backward(*((cos, sin) if weight is None else (cos, sin, x, weight)))
        ctx.eps, ctx.dtype = eps, x.dtype
        return pointwise.rotated_heads(x, weight, eps, cos, sin, dtype)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        cos, sin, *kept = ctx.saved_tensors
        if not kept:
            return pointwise.unrotated_heads(grad_outputs[0], cos, sin, ctx.dtype), None, None, None, None, None
        x, weight = kept
        grads = pointwise.rotated_heads_backward(grad_outputs[0], x, weight, ctx.eps, cos, sin)
        return *grads, None, None, None, None


class _NormLinears(torch.autograd.Function):
    """Linear layers side by side on a norm's output, which is rebuilt in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        kept_x: Tensor | None,
        norm_weight: Tensor,
        eps: float,
        dtype: torch.dtype,
        *parameters: Tensor | None,
    ) -> tuple[Tensor, ...]:
        weights, biases = parameters[::2], parameters[1::2]
        ctx.save_for_backward(x if kept_x is None else kept_x, norm_weight, *weights)
        ctx.eps, ctx.dtype, ctx.x_dtype = eps, dtype, x.dtype
        normed = pointwise.rms_norm(x, norm_weight, eps, dtype)
        return tuple(_linear(normed, weight, bias) for weight, bias in zip(weights, biases, strict=True))

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        kept_x, norm_weight, *weights = ctx.saved_tensors
        x = kept_x.to(ctx.x_dtype)
        normed = pointwise.rms_norm(x, norm_weight, ctx.eps, ctx.dtype)
        grad_normed, grads = _linears_backward(grad_outputs, normed, weights, ctx.needs_input_grad[5:])
        grad_x, grad_norm_weight = pointwise.rms_norm_backward(grad_normed, x, norm_weight, ctx.eps)
        return grad_x, None, grad_norm_weight, None, None, *grads


class _OutputNormLinears(torch.autograd.Function):
    """`_NormLinears` of `x + linear(attended)`, of which only the two terms' inputs are kept.

    Returns the sum, and then the linear layers' outputs. It costs the output projection a second time.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        kept_x: Tensor | None,
        attended: Tensor,
        output_weight: Tensor,
        output_bias: Tensor | None,
        norm_weight: Tensor,
        eps: float,
        *parameters: Tensor | None,
    ) -> tuple[Tensor, ...]:
        weights, biases = parameters[::2], parameters[1::2]
        ctx.save_for_backward(
            x if kept_x is None else kept_x, attended, output_weight, output_bias, norm_weight, *weights
        )
        ctx.eps, ctx.x_dtype = eps, x.dtype
        residual = x + _linear(attended, output_weight, output_bias)
        normed = pointwise.rms_norm(residual, norm_weight, eps, attended.dtype)
        return residual, *(_linear(normed, weight, bias) for weight, bias in zip(weights, biases, strict=True))

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        kept_x, attended, output_weight, output_bias, norm_weight, *weights = ctx.saved_tensors
        residual = kept_x.to(ctx.x_dtype) + _linear(attended, output_weight, output_bias)
        normed = pointwise.rms_norm(residual, norm_weight, ctx.eps, attended.dtype)
        grad_normed, grads = _linears_backward(grad_outputs[1:], normed, weights, ctx.needs_input_grad[7:])
        grad_norm, grad_norm_weight = pointwise.rms_norm_backward(grad_normed, residual, norm_weight, ctx.eps)
        grad_residual = grad_outputs[0] + grad_norm
        grad_attended, grad_output = _linears_backward(
            [grad_residual.to(attended.dtype)], attended, [output_weight], ctx.needs_input_grad[3:5]
        )
        return grad_residual, None, grad_attended, *grad_output, grad_norm_weight, None, *grads


class _SwiGLU(torch.autograd.Function):
    """SwiGLU that keeps gate and up only."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return pointwise.swiglu(gate, up)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, ...]:
        return pointwise.swiglu_backward(grad_outputs[0], *ctx.saved_tensors)[1:]


class _SwiGLULinear(torch.autograd.Function):
    """A linear layer on SwiGLU, whose product is rebuilt from gate and up, kept as they are or as int8."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, weight: Tensor, compressed: bool) -> Tensor:
        ctx.compressed = compressed
        if compressed:
            product, *kept = pointwise.swiglu_quantize(gate, up)
        else:
            product, kept = pointwise.swiglu(gate, up), [gate, up]
        ctx.save_for_backward(weight, *kept)
        return _linear(product, weight, None)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grad_outputs
        weight, *kept = ctx.saved_tensors
        grad_product = grad @ weight.to(grad.dtype)
        backward = pointwise.swiglu_backward_quantized if ctx.compressed else pointwise.swiglu_backward
        product, grad_gate, grad_up = backward(grad_product, *kept)
        grad_weight = _weight_gradient(grad, product, weight) if ctx.needs_input_grad[2] else None
        return grad_gate, grad_up, grad_weight, None


def _linear(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    assert weight is not None
    return nn.functional.linear(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype))


def _weight_gradient(grad: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    return (grad.flatten(0, -2).t() @ x.flatten(0, -2)).to(weight.dtype)


def _linears_backward(
    grad_outputs: Sequence[Tensor], x: Tensor, weights: Sequence[Tensor], needed: Sequence[bool]
) -> tuple[Tensor, list[Tensor | None]]:
    """The gradient of `x`, and those of weight, bias, weight, ... that are `needed`."""
    rows = x.flatten(0, -2)
    grad_x: Tensor | None = None
    grads: list[Tensor | None] = []
    for index, (grad_output, weight) in enumerate(zip(grad_outputs, weights, strict=True)):
        grad = grad_output.flatten(0, -2)
        cast = weight.to(x.dtype)
        grad_x = grad @ cast if grad_x is None else torch.addmm(grad_x, grad, cast)
        grads.append((grad.t() @ rows).to(weight.dtype) if needed[2 * index] else None)
        grads.append(grad.sum(dim=0).to(weight.dtype) if needed[2 * index + 1] else None)
    assert grad_x is not None
    return grad_x.view_as(x), grads


def rms_norm(x: Tensor, norm: RMSNorm, *, keep_dtype: bool = False) -> Tensor:
    """`norm(x)` in the dtype linear layers compute in (`keep_dtype`: the norm's own), keeping `x` only."""
    dtype = torch.promote_types(x.dtype, norm.weight.dtype) if keep_dtype else compute_dtype(x)
    return _RMSNorm.apply(x, norm.weight, norm.eps, dtype)


def rotate_heads(x: Tensor, norm: RMSNorm | None, rotary: tuple[Tensor, Tensor], dtype: torch.dtype) -> Tensor:
    """Queries or keys `[B, T, heads, D]`, normalised and rotated, as `[B, heads, T, D]` in `dtype`."""
    weight, eps = (None, 0.0) if norm is None else (norm.weight, norm.eps)
    return _RotatedHeads.apply(x, weight, eps, *rotary, dtype)


def norm_linears(x: Tensor, kept_x: Tensor | None, norm: RMSNorm, linears: Sequence[nn.Linear]) -> tuple[Tensor, ...]:
    """`linear(norm(x))` of every linear layer, keeping `x` only, or `kept_x` in its place."""
    return _NormLinears.apply(x, kept_x, norm.weight, norm.eps, compute_dtype(x), *_parameters(linears))


def output_norm_linears(
    x: Tensor, kept_x: Tensor | None, attended: Tensor, output: nn.Linear, norm: RMSNorm, linears: Sequence[nn.Linear]
) -> tuple[Tensor, ...]:
    """`y = x + output(attended)`, then `linear(norm(y))` of every linear layer, keeping its two inputs only."""
    parameters = _parameters(linears)
    return _OutputNormLinears.apply(x, kept_x, attended, output.weight, output.bias, norm.weight, norm.eps, *parameters)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """`silu(gate) * up`, keeping gate and up only."""
    return _SwiGLU.apply(gate, up)


def swiglu_linear(gate: Tensor, up: Tensor, linear: nn.Linear, *, compressed: bool) -> Tensor:
    """`linear(silu(gate) * up)`, keeping gate and up only, as int8 with block scales if `compressed`."""
    return _SwiGLULinear.apply(gate, up, linear.weight, compressed)


def _parameters(linears: Sequence[nn.Linear]) -> list[Tensor | None]:
    return [parameter for linear in linears for parameter in (linear.weight, linear.bias)]
