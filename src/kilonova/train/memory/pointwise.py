"""The arithmetic of a layer that is cheap enough to do twice, and the backward formulas it goes into.

In eager mode on a GPU every function here runs as one compiled kernel; elsewhere, and inside a compiled graph, it is
plain PyTorch. Backward formulas compute in float32 (float64 for float64 inputs) and round once.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from kilonova.nn.compile import compile_lazily
from kilonova.nn.rotary import apply_rotary

P = ParamSpec("P")
R = TypeVar("R")

_MAX_BLOCK = 32


def _fused(function: Callable[P, R]) -> Callable[P, R]:
    compiled = compile_lazily(function)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        first = args[0]
        in_eager_cuda = isinstance(first, Tensor) and first.is_cuda and not torch.compiler.is_compiling()
        return (compiled if in_eager_cuda else function)(*args, **kwargs)

    return call


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """What `RMSNorm` computes, in its dtypes."""
    if x.dtype == torch.float32:
        return nn.functional.rms_norm(x, weight.shape, weight, eps)
    return weight * nn.functional.rms_norm(x.float(), weight.shape, None, eps).to(x.dtype)


def _rms_norm_backward(grad: Tensor, x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    wide, grad = _wide(x), _wide(grad)
    inverse = torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + eps)
    normed = wide * inverse
    weighted = grad * weight
    grad_x = inverse * (weighted - normed * (weighted * normed).mean(dim=-1, keepdim=True))
    grad_weight = (grad * normed).flatten(0, -2).sum(dim=0)
    return grad_x.to(x.dtype), grad_weight.to(weight.dtype)


@_fused
def rms_norm(x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    """`RMSNorm` of `x` `[..., n]`, in `dtype`."""
    return _rms_norm(x, weight, eps).to(dtype)


@_fused
def rms_norm_backward(grad: Tensor, x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Gradients of `x` and `weight`, in their dtypes."""
    return _rms_norm_backward(grad, x, weight, eps)


@_fused
def rotated_heads(x: Tensor, weight: Tensor | None, eps: float, cos: Tensor, sin: Tensor, dtype: torch.dtype) -> Tensor:
    """Query-key norm (when there is a `weight`) and rotary positions: `[B, T, heads, D]` to `[B, heads, T, D]`."""
    normed = x if weight is None else _rms_norm(x, weight, eps)
    return apply_rotary(normed.transpose(1, 2), cos, sin).to(dtype)


@_fused
def unrotated_heads(grad: Tensor, cos: Tensor, sin: Tensor, dtype: torch.dtype) -> Tensor:
    """The gradient before the rotation, `[B, T, heads, D]`, of `grad` `[B, heads, T, D]`."""
    return _unrotated(grad, cos, sin).to(dtype)


@_fused
def rotated_heads_backward(
    grad: Tensor, x: Tensor, weight: Tensor, eps: float, cos: Tensor, sin: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of `x` and `weight` of `rotated_heads`, in their dtypes."""
    return _rms_norm_backward(_unrotated(grad, cos, sin), x, weight, eps)


def _unrotated(grad: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = (grad := _wide(grad)).mul(sin).chunk(2, dim=-1)
    return (grad * cos + torch.cat((second, -first), dim=-1)).transpose(1, 2)


@_fused
def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """`silu(gate) * up`."""
    return nn.functional.silu(gate) * up


def _swiglu_backward(grad: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    product = nn.functional.silu(gate) * up
    grad, wide_gate, wide_up = _wide(grad), _wide(gate), _wide(up)
    sigmoid = wide_gate.sigmoid()
    grad_gate = grad * wide_up * sigmoid * (1 + wide_gate * (1 - sigmoid))
    grad_up = grad * wide_gate * sigmoid
    return product, grad_gate.to(gate.dtype), grad_up.to(up.dtype)


@_fused
def swiglu_backward(grad: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The product itself, and the gradients of gate and up."""
    return _swiglu_backward(grad, gate, up)


def block_size(size: int) -> int:
    """How many of `size` values share a scale in `quantize`: the largest divisor that is at most 32.

    All blocks are whole, as torch's compiler makes wrong code for int8 tensors that are padded or cut on a CPU.
    """
    return next(block for block in range(_MAX_BLOCK, 0, -1) if size % block == 0)


def _quantize(x: Tensor) -> tuple[Tensor, Tensor]:
    blocks = x.unflatten(-1, (-1, block_size(x.shape[-1])))
    largest = blocks.abs().amax(dim=-1)
    # A block of zeros stays zero whatever it is divided by.
    step = _wide(torch.where(largest == 0, 1, largest))[..., None] / 127
    return (blocks / step).round().to(torch.int8).flatten(-2), largest


def _dequantize(codes: Tensor, largest: Tensor) -> Tensor:
    blocks = codes.unflatten(-1, (largest.shape[-1], -1))
    return (blocks * (_wide(largest)[..., None] / 127)).flatten(-2)


@_fused
def quantize(x: Tensor) -> tuple[Tensor, Tensor]:
    """`x` `[..., n]` as int8 codes `[..., n]`, in 1/127 of their block's largest magnitude, and these magnitudes.

    They are `[..., n / block_size(n)]`, in the dtype of `x`.
    """
    return _quantize(x)


@_fused
def dequantize(codes: Tensor, largest: Tensor) -> Tensor:
    """The values that `quantize` kept, in the dtype of `largest`."""
    return _dequantize(codes, largest).to(largest.dtype)


@_fused
def swiglu_quantize(gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """`swiglu`, and what `quantize` makes of gate and of up."""
    return nn.functional.silu(gate) * up, *_quantize(gate), *_quantize(up)


@_fused
def swiglu_backward_quantized(
    grad: Tensor, gate: Tensor, largest_gate: Tensor, up: Tensor, largest_up: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """`swiglu_backward` of what `swiglu_quantize` kept."""
    product, *grads = _swiglu_backward(grad, _dequantize(gate, largest_gate), _dequantize(up, largest_up))
    return product.to(grad.dtype), grads[0].to(grad.dtype), grads[1].to(grad.dtype)
