"""The tensors of a quantised layer in the compressed-tensors layout."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kilonova.models.quantization.scheme import StoredScheme
from kilonova.nn.quantized import QuantizedLinear, pack_int8, unpack_int8

# What a reader of symmetric weights without quantised activations has no use for.
_UNUSED = ("weight_shape", "weight_zero_point", "input_scale", "input_zero_point", "output_scale", "output_zero_point")


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as it is stored: the layer's `buffer` that it fills, shape, safetensors' type, and how it is read."""

    buffer: str
    shape: tuple[int, ...]
    dtypes: tuple[str, ...]
    read: Callable[[Tensor], Tensor]


def stored_tensors(layer: QuantizedLinear, scheme: StoredScheme) -> dict[str, StoredTensor]:
    """What a layer that is stored as `scheme` says reads, by the last part of the stored name."""
    rows, columns = layer.out_features, layer.in_features
    if layer.number_format == "int4":
        weight = StoredTensor("quantized_weight", (rows, columns // 8), ("I32",), Tensor.contiguous)
    elif scheme.packed:
        weight = StoredTensor("quantized_weight", (rows, -(-columns // 4)), ("I32",), _read_int8(columns))
    elif layer.number_format == "fp8":
        weight = StoredTensor("quantized_weight", (rows, columns), ("F8_E4M3",), _bytes)
    else:
        weight = StoredTensor("quantized_weight", (rows, columns), ("I8",), Tensor.contiguous)
    groups = layer.scale.shape[1]
    shape = (1,) if scheme.per_tensor else (rows, groups)
    scale = StoredTensor("scale", shape, ("F32", "F16", "BF16", "F64"), lambda found: _each_row(found, rows, groups))
    return {"weight_packed" if scheme.packed else "weight": weight, "weight_scale": scale}


def is_unused(leaf: str) -> bool:
    """Whether a tensor of a quantised layer may be there without being read."""
    return leaf in _UNUSED


def written_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Name and contents of what the quantised layers of `model` write, biases aside; see `write_quantization`."""
    for name, layer in model.named_modules():
        if not isinstance(layer, QuantizedLinear):
            continue
        if layer.number_format == "fp8":
            yield f"{name}.weight", layer.values()
        else:
            packed = layer.quantized_weight if layer.number_format == "int4" else _packed_int8(layer.values())
            yield f"{name}.weight_packed", packed
            yield f"{name}.weight_shape", torch.tensor([layer.out_features, layer.in_features])
        yield f"{name}.weight_scale", layer.scale


def _packed_int8(values: Tensor) -> Tensor:
    missing = -values.shape[1] % 4
    # The packer fills up with zeros after it has added 128.
    return pack_int8(nn.functional.pad(values, (0, missing), value=-128) if missing else values)


def _read_int8(columns: int) -> Callable[[Tensor], Tensor]:
    return lambda packed: unpack_int8(packed)[:, :columns].contiguous()


def _bytes(values: Tensor) -> Tensor:
    return values.contiguous().view(torch.uint8)


def _each_row(scale: Tensor, rows: int, groups: int) -> Tensor:
    return scale.expand(rows, groups).contiguous()
