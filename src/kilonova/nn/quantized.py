"""Linear layers whose weights are stored in eight or four bits."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

NumberFormat = Literal["int8", "int4", "fp8"]
GROUP_SIZES = (32, 64, 128)

_FP8 = torch.float8_e4m3fn
_FP8_MAX = torch.finfo(_FP8).max
# The largest magnitude of a group becomes this integer. Four bits gain from clipping it: the best of these is taken.
_INT8_MAX = 127.0
_INT4_MAXIMA = tuple(7.0 + 0.25 * step for step in range(17))


class QuantizedLinear(nn.Module):
    """`x @ W.t() + b` with `W[i, j] = value[i, j] * scale[i, j // group_size]`.

    `number_format` is `int8`, `int4` or `fp8` (e4m3); `group_size` is the number of neighbouring inputs that share a
    scale, None for one scale a row. Buffers: `quantized_weight` holds int8 `[out, in]`, the bytes of e4m3 values as
    uint8 `[out, in]`, or for int4 int32 `[out, in / 8]` as of `pack_int4`; `scale` is a float `[out, groups]`. The
    layer holds nothing to train but `bias`, which stays a parameter. ValueError for sizes that do not divide.
    """

    quantized_weight: Tensor
    scale: Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        number_format: NumberFormat,
        group_size: int | None = None,
        bias: bool = False,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        if problem := unsupported_size(in_features, number_format, group_size):
            raise ValueError(problem)
        self.in_features, self.out_features = in_features, out_features
        self.number_format: NumberFormat = number_format
        self.group_size = group_size
        groups = 1 if group_size is None else in_features // group_size
        stored = {"int8": torch.int8, "fp8": torch.uint8, "int4": torch.int32}[number_format]
        columns = in_features // 8 if number_format == "int4" else in_features
        self.register_buffer("quantized_weight", torch.zeros(out_features, columns, dtype=stored, device=device))
        self.register_buffer("scale", torch.ones(out_features, groups, dtype=dtype, device=device))
        bias_tensor = torch.zeros(out_features, dtype=dtype, device=device) if bias else None
        self.bias = None if bias_tensor is None else nn.Parameter(bias_tensor)

    @property
    def bits(self) -> int:
        """Bits of a stored value."""
        return 4 if self.number_format == "int4" else 8

    @classmethod
    def from_linear(
        cls, layer: nn.Linear, number_format: NumberFormat, group_size: int | None = None, scale: Tensor | None = None
    ) -> QuantizedLinear:
        """`layer` rounded to nearest, with scales in the dtype of its weight; `scale` None means `weight_scale`'s."""
        weight = layer.weight.detach()
        if scale is None:
            scale = weight_scale(weight, number_format, group_size)
        return cls.from_values(layer, quantize(weight, scale, number_format), scale, number_format, group_size)

    @classmethod
    def from_values(
        cls, layer: nn.Linear, values: Tensor, scale: Tensor, number_format: NumberFormat, group_size: int | None
    ) -> QuantizedLinear:
        """What stands in for `layer`: its bias, and `values` `[out, in]` as of `quantize` with their `scale`."""
        found = cls(layer.in_features, layer.out_features, number_format, group_size, device="meta")
        if number_format == "int4":
            found.quantized_weight = pack_int4(values)
        else:
            found.quantized_weight = values.view(torch.uint8) if number_format == "fp8" else values
        found.scale, found.bias = scale, layer.bias
        return found

    def values(self) -> Tensor:
        """The stored values `[out, in]`: int8, for fp8 float8_e4m3fn."""
        if self.number_format == "int4":
            return unpack_int4(self.quantized_weight)
        return self.quantized_weight.view(_FP8) if self.number_format == "fp8" else self.quantized_weight

    def dequantize(self, dtype: torch.dtype) -> Tensor:
        """The weight `[out, in]` in `dtype`."""
        return dequantize(self.values(), self.scale, dtype)

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.dequantize(x.dtype), None if self.bias is None else self.bias.to(x.dtype))

    def extra_repr(self) -> str:
        sizes = f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"
        return f"{sizes}, number_format={self.number_format}, group_size={self.group_size}"


def num_quantized_weights(model: nn.Module) -> int:
    """Weights that the quantised layers of `model` hold, which are no parameters; scales are not counted."""
    layers = (module for module in model.modules() if isinstance(module, QuantizedLinear))
    return sum(layer.in_features * layer.out_features for layer in layers)


def unsupported_size(in_features: int, number_format: NumberFormat, group_size: int | None) -> str:
    """Why a row of `in_features` cannot be stored so; empty if it can."""
    if group_size is not None and in_features % group_size:
        return f"{in_features} inputs are not a multiple of the group size {group_size}"
    if number_format == "int4" and in_features % 8:
        return f"{in_features} inputs are not a multiple of 8, which four-bit storage needs"
    return ""


def weight_scale(
    weight: Tensor,
    number_format: NumberFormat,
    group_size: int | None = None,
    *,
    importance: Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """The scales `[out, groups]` for rounding `weight` `[out, in]` to nearest, in `dtype` or else the weight's.

    A group's largest magnitude maps to 127 (int8) or 448 (fp8). With four bits it maps to the value between 7 and 11
    that makes the squared error of the group least, weighted by `importance` `[in]` where given, so that the largest
    are clipped where this is for the better.
    """
    dtype = dtype or weight.dtype
    groups = _grouped(weight.float(), group_size)
    largest = groups.abs().amax(dim=-1).clamp_min(torch.finfo(torch.float32).tiny ** 0.5)
    if number_format != "int4":
        return _storable(largest / (_INT8_MAX if number_format == "int8" else _FP8_MAX), dtype)
    weighting = None if importance is None else _grouped(importance.float()[None], group_size)
    best = least = torch.empty(0)
    for maximum in _INT4_MAXIMA:
        scale = _storable(largest / maximum, dtype)
        step = scale.float()[..., None]
        error = (groups / step).round_().clamp_(-8, 7).mul_(step).sub_(groups).square_()
        loss = (error if weighting is None else error * weighting).sum(dim=-1)
        best = scale if not best.numel() else torch.where(loss < least, scale, best)
        least = loss if not least.numel() else torch.minimum(loss, least)
    return best


def quantize(weight: Tensor, scale: Tensor, number_format: NumberFormat) -> Tensor:
    """`weight` `[out, in]` divided by `scale` `[out, groups]` and rounded to nearest: int8 `[out, in]` within the
    bounds of the format, for fp8 float8_e4m3fn."""
    ratio = _grouped(weight.float(), weight.shape[1] // scale.shape[1]) / scale.float()[..., None]
    if number_format == "fp8":
        return ratio.clamp_(-_FP8_MAX, _FP8_MAX).to(_FP8).flatten(1)
    low, high = (-8, 7) if number_format == "int4" else (-128, 127)
    return ratio.round_().clamp_(low, high).to(torch.int8).flatten(1)


def dequantize(values: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """`values` `[out, in]` times `scale` `[out, groups]` in `dtype`, rounded once."""
    compute = torch.promote_types(dtype, scale.dtype)
    groups = _grouped(values.to(compute), values.shape[1] // scale.shape[1])
    return (groups * scale.to(compute)[..., None]).flatten(1).to(dtype)


def pack_int4(values: Tensor) -> Tensor:
    """int8 `[out, in]` from -8 to 7 as int32 `[out, in / 8]`: value plus 8, eight to a word, the first in the lowest
    four bits (compressed-tensors' `pack-quantized`)."""
    nibbles = (values + 8).view(torch.uint8)
    return (nibbles[:, 0::2] | (nibbles[:, 1::2] << 4)).view(torch.int32)


def unpack_int4(packed: Tensor) -> Tensor:
    """The int8 values `[out, in]` that `pack_int4` packed."""
    pairs = packed.contiguous().view(torch.uint8)
    return torch.stack((pairs & 0xF, pairs >> 4), dim=-1).flatten(1).view(torch.int8) - 8


def pack_int8(values: Tensor) -> Tensor:
    """int8 `[out, in]` as int32 `[out, in / 4]`: value plus 128, four to a word, the first in the lowest eight bits
    (compressed-tensors' `pack-quantized`)."""
    return (values.contiguous().view(torch.uint8) ^ 0x80).view(torch.int32)


def unpack_int8(packed: Tensor) -> Tensor:
    """The int8 values `[out, in]` that `pack_int8` packed."""
    return (packed.contiguous().view(torch.uint8) ^ 0x80).view(torch.int8)


def _grouped(matrix: Tensor, group_size: int | None) -> Tensor:
    """`[rows, in]` as `[rows, groups, group_size]`."""
    return matrix.unflatten(1, (-1, group_size or matrix.shape[1]))


def _storable(scale: Tensor, dtype: torch.dtype) -> Tensor:
    """`scale` in `dtype`, rounding first, and never to zero."""
    return scale.clamp_min(torch.finfo(dtype).tiny).to(dtype)
