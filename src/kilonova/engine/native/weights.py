"""Weights in the form the native kernels read (`csrc/model.h`)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from kilonova.engine.native import library

GROUP_SIZES = (32, 64, 128)
# int32 sums of 8-bit weights times 13-bit activations stay in range up to here.
MAX_INT8_COLUMNS = 32_768


@dataclass(frozen=True, slots=True)
class PackedLinear:
    """A matrix `[out_features, in_features]` in the kernels' form, and the tensors that own its memory."""

    struct: library.Linear
    tensors: tuple[Tensor | None, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of weights and scales, which a product reads once."""
        return sum(tensor.nbytes for tensor in self.tensors[:2] if tensor is not None)


def pack_float(weight: Tensor, bias: Tensor | None = None) -> PackedLinear:
    """A contiguous float32 or bfloat16 matrix as it stands; its memory is shared, not copied."""
    kind = library.KINDS[str(weight.dtype).removeprefix("torch.")]
    return _packed(weight, None, bias, weight.shape[1], kind, 0)


def pack_int8(values: Tensor, scales: Tensor, bias: Tensor | None = None) -> PackedLinear:
    """int8 `values` `[out, in]` with one scale a row, `[out]`."""
    in_features = values.shape[1]
    padded = pad(values, (0, -in_features % 64)).contiguous()
    return _packed(in_large_pages(padded), scales, bias, in_features, library.KINDS["int8"], 0)


def pack_int4(values: Tensor, scales: Tensor, bias: Tensor | None = None) -> PackedLinear:
    """`values` `[out, in]` from -8 to 7 (int8) with scales `[out, groups]` of 32, 64 or 128 columns each."""
    out_features, in_features = values.shape
    group_size = in_features // scales.shape[1]
    nibbles = pad(values + 8, (0, -in_features % 64), value=8).to(torch.int32).view(out_features, -1, 4, 16)
    words = nibbles[:, :, 0] | nibbles[:, :, 1] << 4 | nibbles[:, :, 2] << 8 | nibbles[:, :, 3] << 12
    scales = pad(scales, (0, nibbles.shape[1] * 64 // group_size - scales.shape[1]))
    return _packed(in_large_pages(words.to(torch.int16)), scales, bias, in_features, library.KINDS["int4"], group_size)


def in_large_pages(tensor: Tensor) -> Tensor:
    """A contiguous copy in large pages of memory, where the system grants them, which are faster to walk over."""
    copy = torch.empty(tensor.shape, dtype=tensor.dtype)
    loaded = library.load()
    if loaded is not None:
        loaded.kilonova_advise(copy.data_ptr(), copy.nbytes)
    return copy.copy_(tensor)


def _packed(
    data: Tensor, scales: Tensor | None, bias: Tensor | None, in_features: int, kind: int, group_size: int
) -> PackedLinear:
    scales = None if scales is None else scales.float().contiguous()
    bias = None if bias is None else bias.detach().float().contiguous()
    struct = library.Linear(data.data_ptr(), _address(scales), _address(bias), in_features, len(data), kind, group_size)
    return PackedLinear(struct, (data, scales, bias))


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def expand(context: library.Context, packed: PackedLinear, dtype: torch.dtype) -> Tensor:
    """The matrix `[out, in]` of packed integers in `dtype`, float32 or bfloat16."""
    out = torch.empty(packed.struct.out_features, packed.struct.in_features, dtype=dtype)
    context.expand(packed.struct, out.data_ptr(), dtype == torch.bfloat16, torch.get_num_threads())
    return out


def multiply(context: library.Context, packed: PackedLinear, x: Tensor) -> Tensor:
    """`x W^T + bias` of float32 `x` `[N, in]`: float32 `[N, out]`, fast for few rows."""
    x = x.contiguous()
    out = torch.empty(len(x), packed.struct.out_features)
    context.multiply(packed.struct, x.data_ptr(), len(x), out.data_ptr(), torch.get_num_threads())
    return out


def rms_norm(context: library.Context, x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`RMSNorm` of float32 rows `[N, size]` with a float32 `weight`, in one pass."""
    x = x.contiguous()
    out = torch.empty_like(x)
    threads = torch.get_num_threads()
    context.pointwise(x.data_ptr(), weight.data_ptr(), eps, x.shape[0], x.shape[1], out.data_ptr(), threads)
    return out


def gate(context: library.Context, pairs: Tensor) -> Tensor:
    """`silu(gate) * up` `[N, size]` of float32 rows `[N, 2 * size]` in which gate and up lie in turn."""
    pairs = pairs.contiguous()
    out = torch.empty(pairs.shape[0], pairs.shape[1] // 2)
    threads = torch.get_num_threads()
    context.pointwise(pairs.data_ptr(), None, 0.0, out.shape[0], out.shape[1], out.data_ptr(), threads)
    return out
