"""Products of the native kernels against plain float64, for every instruction set of this machine."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from kilonova.engine.native import library
from kilonova.engine.native.weights import (
    PackedLinear,
    expand,
    gate,
    in_large_pages,
    multiply,
    pack_float,
    pack_int4,
    pack_int8,
    rms_norm,
)
from kilonova.nn.quantized import QuantizedLinear

pytestmark = pytest.mark.skipif(
    not library.instruction_sets(), reason="the native kernels are not built for this machine"
)

SIZES = [(64, 8), (96, 37), (256, 61), (1024, 130), (3072, 24)]
TOKENS = (1, 2, 3, 4, 5, 8, 11)


@pytest.fixture(params=library.instruction_sets())
def context(request):
    return library.Context(request.param)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def quantized(weight: Tensor, number_format, group_size=None) -> QuantizedLinear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight.data = weight
    return QuantizedLinear.from_linear(layer, number_format, group_size)


def pack(layer: QuantizedLinear, bias: Tensor | None = None) -> PackedLinear:
    if layer.number_format == "int4":
        return pack_int4(layer.values(), layer.scale, bias)
    return pack_int8(layer.values(), layer.scale[:, 0], bias)


def assert_product(context, packed: PackedLinear, weight: Tensor, bias: Tensor | None, tolerance: float) -> None:
    for tokens in TOKENS:
        x = random(tokens, weight.shape[1], seed=tokens)
        expected = x.double() @ weight.double().t() + (0 if bias is None else bias.double())
        found = multiply(context, packed, x).double()
        assert (found - expected).abs().max() < tolerance * expected.abs().max()


@pytest.mark.parametrize(("columns", "rows"), SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_float_products(context, columns, rows, dtype):
    weight, bias = random(rows, columns).to(dtype), random(rows, seed=1)
    assert_product(context, pack_float(weight), weight, None, 2e-6)
    assert_product(context, pack_float(in_large_pages(weight), bias), weight, bias, 2e-6)


@pytest.mark.parametrize(("columns", "rows"), SIZES)
@pytest.mark.parametrize(("number_format", "group_size"), [("int8", None), ("int4", 32), ("int4", 64), ("int4", 128)])
def test_integer_products(context, columns, rows, number_format, group_size):
    if group_size is not None and columns % group_size:
        pytest.skip("the layer has no such groups")
    layer, bias = quantized(random(rows, columns), number_format, group_size), random(rows, seed=1)
    # Activations have 13 bits.
    assert_product(context, pack(layer, bias), layer.dequantize(torch.float32), bias, 1e-3)


@pytest.mark.parametrize(("number_format", "group_size"), [("int8", None), ("int4", 32), ("int4", 64), ("int4", 128)])
def test_extreme_values_do_not_overflow(context, number_format, group_size):
    layer = quantized(torch.full((3, 16_384), -1.0), number_format, group_size)
    x = torch.full((2, 16_384), 3.0)
    weight = layer.dequantize(torch.float32)
    torch.testing.assert_close(multiply(context, pack(layer), x), x @ weight.t(), rtol=1e-4, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("number_format", "group_size"), [("int8", None), ("int4", 32), ("int4", 64)])
def test_integers_expand_to_their_numbers(context, dtype, number_format, group_size):
    columns = 96 if group_size != 64 else 192
    layer = quantized(random(21, columns), number_format, group_size)
    torch.testing.assert_close(expand(context, pack(layer), dtype), layer.dequantize(dtype), rtol=0, atol=0)


@pytest.mark.parametrize("number_format", ["float", "int8", "int4"])
def test_a_token_does_not_depend_on_its_batch(context, number_format):
    weight = random(70, 256)
    packed = (
        pack_float(weight)
        if number_format == "float"
        else pack(quantized(weight, number_format, 64 if number_format == "int4" else None))
    )
    x = random(16, 256, seed=3)
    together = multiply(context, packed, x)
    for first in range(16):
        for last in range(first + 1, 17):
            assert torch.equal(multiply(context, packed, x[first:last]), together[first:last])


@pytest.mark.parametrize(("rows", "size"), [(1, 16), (7, 96), (130, 1024)])
def test_norms_and_gates(context, rows, size):
    x, weight = random(rows, size), 1 + random(size, seed=1)
    wide = x.double()
    expected = wide * (wide.square().mean(1, keepdim=True) + 1e-6).rsqrt() * weight.double()
    torch.testing.assert_close(rms_norm(context, x, weight, 1e-6).double(), expected, rtol=1e-5, atol=1e-6)
    pairs = 8 * random(rows, 2 * size, seed=2)
    gates, ups = pairs.double().unflatten(1, (-1, 2)).unbind(2)
    torch.testing.assert_close(gate(context, pairs).double(), gates * gates.sigmoid() * ups, rtol=1e-5, atol=1e-6)


def test_no_activation_at_all(context):
    packed = pack(quantized(random(5, 64), "int8"))
    assert torch.equal(multiply(context, packed, torch.zeros(2, 64)), torch.zeros(2, 5))


def test_an_absent_instruction_set_is_named():
    with pytest.raises(library.EngineError, match="avx9"):
        library.Context("avx9")
