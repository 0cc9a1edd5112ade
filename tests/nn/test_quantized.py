from __future__ import annotations

import pytest
import torch
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32, unpack_from_int32
from compressed_tensors.quantization import QuantizationArgs
from compressed_tensors.quantization.lifecycle.forward import dequantize as reference_dequantize
from compressed_tensors.quantization.lifecycle.forward import quantize as reference_quantize
from torch import nn

from kilonova.nn.quantized import (
    QuantizedLinear,
    dequantize,
    num_quantized_weights,
    pack_int4,
    pack_int8,
    quantize,
    unpack_int4,
    unpack_int8,
    weight_scale,
)

FORMATS = {
    "int8": ("int8", None, {"num_bits": 8, "strategy": "channel"}),
    "int8-groups": ("int8", 32, {"num_bits": 8, "strategy": "group", "group_size": 32}),
    "int4": ("int4", 32, {"num_bits": 4, "strategy": "group", "group_size": 32}),
    "int4-rows": ("int4", None, {"num_bits": 4, "strategy": "channel"}),
    "fp8": ("fp8", None, {"num_bits": 8, "type": "float", "strategy": "channel"}),
}


@pytest.fixture
def weight() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(24, 96, generator=generator) * torch.rand(24, 1, generator=generator)
    weight[3] = 0.0
    weight[4, 7] = 40.0
    return weight


def test_words_are_those_of_compressed_tensors() -> None:
    generator = torch.Generator().manual_seed(1)
    four = torch.randint(-8, 8, (7, 64), generator=generator).to(torch.int8)
    eight = torch.randint(-128, 128, (7, 64), generator=generator).to(torch.int8)

    assert torch.equal(pack_int4(four), pack_to_int32(four, 4))
    assert torch.equal(pack_int8(eight), pack_to_int32(eight, 8))
    assert torch.equal(unpack_int4(pack_int4(four)), unpack_from_int32(pack_to_int32(four, 4), 4, four.shape))
    assert torch.equal(unpack_int4(pack_int4(four)), four)
    assert torch.equal(unpack_int8(pack_int8(eight)), eight)


@pytest.mark.parametrize("name", FORMATS)
def test_values_are_those_of_compressed_tensors(name: str, weight: torch.Tensor) -> None:
    number_format, group_size, described = FORMATS[name]
    arguments = QuantizationArgs(symmetric=True, **described)
    scale = weight_scale(weight, number_format, group_size)

    values = quantize(weight, scale, number_format)

    stored = torch.float8_e4m3fn if number_format == "fp8" else torch.int8
    reference = reference_quantize(weight, scale, None, arguments, dtype=stored)
    assert torch.equal(values.float(), reference.float())
    for dtype in (torch.float32, torch.bfloat16):
        expected = reference_dequantize(reference, scale.to(dtype), None, arguments)
        assert torch.equal(dequantize(values, scale.to(dtype), dtype), expected)


def test_eight_bits_are_off_by_half_a_step_at_most(weight: torch.Tensor) -> None:
    scale = weight_scale(weight, "int8")
    error = dequantize(quantize(weight, scale, "int8"), scale, torch.float64) - weight.double()

    assert (error.abs() <= scale.double() / 2 * (1 + 1e-5)).all()
    assert torch.equal(scale[:3, 0], weight[:3].abs().amax(dim=1) / 127)


@pytest.mark.parametrize("importance", [None, torch.linspace(0.0, 5.0, 96)])
def test_scales_of_four_bits_lose_less_than_those_of_the_largest_weight(
    weight: torch.Tensor, importance: torch.Tensor | None
) -> None:
    def loss(scale: torch.Tensor) -> torch.Tensor:
        error = (dequantize(quantize(weight, scale, "int4"), scale, torch.float32) - weight).square()
        weighted = error if importance is None else error * importance
        return weighted.unflatten(1, (-1, 32)).sum(dim=-1)

    largest = weight.unflatten(1, (-1, 32)).abs().amax(dim=-1).clamp_min(1e-12)
    found = loss(weight_scale(weight, "int4", 32, importance=importance))

    for divisor in (7.0, 7.5, 8.0):
        assert (found <= loss(largest / divisor) + 1e-6).all()
    assert found.sum() < 0.95 * loss(largest / 7.5).sum()


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_layer_computes_with_the_dequantised_weight(name: str, dtype: torch.dtype) -> None:
    number_format, group_size, _ = FORMATS[name]
    torch.manual_seed(0)
    linear = nn.Linear(96, 24, dtype=dtype)
    layer = QuantizedLinear.from_linear(linear, number_format, group_size)
    x = torch.randn(5, 96, dtype=dtype)

    groups = layer.values().double().unflatten(1, (layer.scale.shape[1], -1))
    expected = x.double() @ (groups * layer.scale.double()[..., None]).flatten(1).t() + linear.bias.double()

    assert layer.bits == (4 if number_format == "int4" else 8)
    assert layer.group_size == group_size
    assert num_quantized_weights(nn.Sequential(layer, nn.Linear(24, 2))) == 24 * 96
    tolerance = 1e-5 if dtype == torch.float32 else 5e-2
    torch.testing.assert_close(layer(x).double(), expected, atol=tolerance, rtol=tolerance)
    assert layer(x).dtype == dtype


@pytest.mark.parametrize("name", FORMATS)
def test_conversion_of_a_model_leaves_stored_values_alone(name: str) -> None:
    number_format, group_size, _ = FORMATS[name]
    layer = QuantizedLinear.from_linear(nn.Linear(96, 24), number_format, group_size)
    before = layer.quantized_weight.clone()

    layer.to(torch.bfloat16)

    assert layer.quantized_weight.dtype == before.dtype
    assert torch.equal(layer.quantized_weight, before)


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="48 inputs are not a multiple of the group size 32"):
        QuantizedLinear(48, 8, "int4", 32)
    with pytest.raises(ValueError, match="12 inputs are not a multiple of 8"):
        QuantizedLinear(12, 8, "int4")
