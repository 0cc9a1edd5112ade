"""Linear layers that read the same input, as one matrix, in the form in which it is multiplied fastest."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kilonova.engine.native.library import Context
from kilonova.engine.native.weights import MAX_INT8_COLUMNS, PackedLinear, expand, pack_float, pack_int4, pack_int8
from kilonova.nn.quantized import QuantizedLinear

# A weight of another form than the products' is converted anew for each of them, unless it is this small.
_CONVERTED_BYTES = 16 * 2**20


class JoinedLinear:
    """`y = x W^T + bias` of layers whose rows lie one after another or, `interleaved`, in turn.

    Float weights become one tensor, and the layers' own weights views of it, so that nothing is stored twice. With
    `native` it is row by row, as the native kernels read it; else input-major, `[in, out]`, which CPU libraries
    multiply by a few rows up to twice as fast. Quantised layers keep their integers, here only. Products that are
    PyTorch's want them multiplied out: large ones are so for each product, small ones once.
    """

    def __init__(
        self, layers: Sequence[nn.Linear | QuantizedLinear], native: Context | None, *, interleaved: bool = False
    ) -> None:
        self.in_features = layers[0].in_features
        self.out_features = sum(layer.out_features for layer in layers)
        self._native = native
        self._interleaved = interleaved
        self.packed: PackedLinear | None = None
        self._converted: Tensor | None = None
        biases = [layer.bias.detach() for layer in layers if layer.bias is not None]
        self.bias = self._join(biases) if biases else None
        self._quantized = [layer for layer in layers if isinstance(layer, QuantizedLinear)]
        if native is not None and len(self._quantized) == len(layers) and self._pack_quantized():
            return
        if self._quantized:
            return
        floats = [layer for layer in layers if isinstance(layer, nn.Linear)]
        self._weight = self._join([layer.weight.detach() for layer in floats])
        if native is None:
            self._weight = self._weight.t().contiguous().t()
        for layer, part in zip(floats, self._split(self._weight, floats), strict=True):
            layer.weight.data = part
        if native is not None and self.in_features % native.lanes == 0:
            self.packed = pack_float(self._weight, self.bias)

    def __call__(self, x: Tensor) -> Tensor:
        """`x` is `[N, in]`; the result `[N, out]`, of the same dtype."""
        matrix = self._matrix(x.dtype)
        return torch.mm(x, matrix) if self.bias is None else torch.addmm(self.bias.to(x.dtype), x, matrix)

    def add_to(self, residual: Tensor, x: Tensor) -> Tensor:
        """`residual + self(x)`."""
        total = torch.addmm(residual, x, self._matrix(x.dtype))
        return total if self.bias is None else total.add_(self.bias)

    def _matrix(self, dtype: torch.dtype) -> Tensor:
        """`W^T`, `[in, out]`, in the dtype of the product."""
        if not self._quantized and self._weight.dtype == dtype:
            return self._weight.t()
        if self._converted is not None and self._converted.dtype == dtype:
            return self._converted.t()
        converted = self._convert(dtype)
        if converted.nbytes <= _CONVERTED_BYTES:
            self._converted = converted
        return converted.t()

    def _convert(self, dtype: torch.dtype) -> Tensor:
        if not self._quantized:
            return self._weight.to(dtype)
        if self.packed is None:
            return self._join([layer.dequantize(dtype) for layer in self._quantized])
        assert self._native is not None
        return expand(self._native, self.packed, dtype)

    def _pack_quantized(self) -> bool:
        """Packs integers that all have one of the forms the native kernels know, and takes them from the layers."""
        layers = self._quantized
        forms = {(layer.number_format, layer.group_size) for layer in layers}
        if len(forms) > 1:
            return False
        ((number_format, group_size),) = forms
        if number_format == "int4" and group_size is not None:
            pack = pack_int4
            scales = [layer.scale for layer in layers]
        elif number_format == "int8" and group_size is None and self.in_features <= MAX_INT8_COLUMNS:
            pack = pack_int8
            scales = [layer.scale[:, 0] for layer in layers]
        else:
            return False
        self.packed = pack(self._join([layer.values() for layer in layers]), self._join(scales), self.bias)
        for layer in layers:
            layer.quantized_weight = torch.empty(0, dtype=layer.quantized_weight.dtype)
        return True

    def _join(self, parts: Sequence[Tensor]) -> Tensor:
        if len(parts) == 1:
            return parts[0].contiguous()
        return torch.stack(list(parts), dim=1).flatten(0, 1) if self._interleaved else torch.cat(list(parts))

    def _split(self, joined: Tensor, layers: Sequence[nn.Linear]) -> Sequence[Tensor]:
        if self._interleaved:
            return joined.unflatten(0, (-1, len(layers))).unbind(1)
        return joined.split([layer.out_features for layer in layers])
