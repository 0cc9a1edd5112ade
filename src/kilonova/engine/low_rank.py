"""An adapter's matrices in the form in which the engine adds them to the products of a layer."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from kilonova.engine.native import library
from kilonova.engine.native.weights import pack_float
from kilonova.models.adapter import AdapterTensors
from kilonova.models.decoder.model import Decoder
from kilonova.nn.quantized import QuantizedLinear

# The linear layers whose rows each product of a layer computes, in the order of `csrc/model.h`.
QKV, OUTPUT, GATE_UP, DOWN = range(4)
_PRODUCTS = (
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    ("self_attn.o_proj",),
    ("mlp.gate_proj", "mlp.up_proj"),
    ("mlp.down_proj",),
)
# Rows that the native kernels add to at a time.
_TILE = 16


def adaptable_shapes(decoder: Decoder) -> dict[str, tuple[int, int]]:
    """`(out_features, in_features)` of each linear layer, plain or quantised, to which adapters can add, by name."""
    leaves = list(chain.from_iterable(_PRODUCTS))
    names = [f"model.layers.{index}.{leaf}" for index in range(len(decoder.model.layers)) for leaf in leaves]
    modules = dict(decoder.named_modules())
    return {
        name: (layer.out_features, layer.in_features)
        for name in names
        if isinstance(layer := modules.get(name), nn.Linear | QuantizedLinear)
    }


class AdapterWeights:
    """What a LoRA adapter adds to the products of each layer, in `dtype`, its scaling included.

    `shapes` are those of `adaptable_shapes`; `native` gives the form of the native kernels, which PyTorch's products
    read too.
    """

    def __init__(
        self,
        adapter: AdapterTensors,
        shapes: Mapping[str, tuple[int, int]],
        num_layers: int,
        dtype: torch.dtype,
        device: torch.device,
        *,
        native: bool,
    ) -> None:
        scaling = adapter.config.scaling
        self._products: list[list[LowRankProduct | None]] = []
        for index in range(num_layers):
            row: list[LowRankProduct | None] = []
            for leaves in _PRODUCTS:
                names = [f"model.layers.{index}.{leaf}" for leaf in leaves]
                pairs = [
                    (tensors["lora_A"].to(device, dtype), (tensors["lora_B"].to(device).float() * scaling).to(dtype))
                    if (tensors := adapter.layers.get(name))
                    else None
                    for name in names
                ]
                sizes = [shapes[name][0] for name in names if name in shapes]
                row.append(_join(pairs, sizes, interleaved=len(leaves) == 2, native=native) if any(pairs) else None)
            self._products.append(row)
        products = [product for row in self._products for product in row]
        self.max_rows = max((len(product.a) for product in products if product), default=0)
        self.nbytes = sum(product.nbytes for product in products if product)
        self._structs: ctypes.Array[library.LowRank] | None = None
        if native:
            absent = library.LowRank()
            self._structs = (library.LowRank * len(products))(
                *(product.struct() if product else absent for product in products)
            )

    @property
    def address(self) -> int:
        """Where the native kernels find it."""
        assert self._structs is not None
        return ctypes.addressof(self._structs)

    def add_to(self, y: Tensor, x: Tensor, layer: int, product: int) -> None:
        """Add to `y` `[N, out]` what `product` of `layer` gains for its input `x` `[N, in]`."""
        found = self._products[layer][product]
        if found is not None:
            found.add_to(y, x)


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows `rows` of a product and what multiplies `z[:, reduced]` to be added: `b` `[rank, rows]`, or tiles of it."""

    rows: slice
    reduced: slice
    b: Tensor

    def matrix(self, dtype: torch.dtype) -> Tensor:
        """`b` `[rank, rows]` in `dtype`, a copy where it is tiles."""
        matrix = self.b if self.b.ndim == 2 else self.b.transpose(0, 1).flatten(1)
        return matrix.to(dtype)


@dataclass(frozen=True, slots=True)
class LowRankProduct:
    """`y += b (a x)` for some rows of `y`; `a` is `[rows, in]`, those of each part one after another or in turn."""

    a: Tensor
    parts: Sequence[_Rows]
    rank: int
    interleaved: bool

    @property
    def nbytes(self) -> int:
        return self.a.nbytes + sum(part.b.nbytes for part in self.parts)

    def add_to(self, y: Tensor, x: Tensor) -> None:
        """`y` is `[N, out]`, `x` `[N, in]`, both of the dtype in which to compute."""
        z = torch.mm(x, self.a.to(x.dtype).t())
        for part in self.parts:
            b = part.matrix(x.dtype)
            if not self.interleaved:
                y[:, part.rows] += torch.mm(z[:, part.reduced], b[:, : part.rows.stop - part.rows.start])
                continue
            pairs = z.unflatten(1, (self.rank, 2))
            y += torch.stack([torch.mm(pairs[:, :, which], b[:, which::2]) for which in (0, 1)], dim=2).flatten(1)

    def struct(self) -> library.LowRank:
        """As the native kernels read it; to be kept alive beside it."""
        parts = [library.LowRankRows(part.b.data_ptr(), part.rows.start, part.rows.stop) for part in self.parts]
        return library.LowRank(
            pack_float(self.a).struct,
            self.rank,
            (library.LowRankRows * 3)(*parts),
            len(parts),
            self.interleaved,
        )


def _join(
    pairs: Sequence[tuple[Tensor, Tensor] | None], sizes: Sequence[int], *, interleaved: bool, native: bool
) -> LowRankProduct:
    """The product of layers with `sizes` rows each; `pairs` are `(a, b)`, None for those without an adapter."""
    present = [pair for pair in pairs if pair is not None]
    rank = len(present[0][0])
    store = _tiles if native else _transposed
    if interleaved:
        a, b = present[0]
        absent = (torch.zeros_like(a), torch.zeros_like(b))
        both = [pair or absent for pair in pairs]
        joined_a, joined_b = (torch.stack(matrices, dim=1).flatten(0, 1) for matrices in zip(*both, strict=True))
        part = _Rows(slice(0, len(joined_b)), slice(0, 2 * rank), store(joined_b))
        return LowRankProduct(joined_a, (part,), rank, True)
    parts: list[_Rows] = []
    row = 0
    for pair, size in zip(pairs, sizes, strict=True):
        if pair is not None:
            reduced = slice(len(parts) * rank, (len(parts) + 1) * rank)
            parts.append(_Rows(slice(row, row + size), reduced, store(pair[1])))
        row += size
    return LowRankProduct(torch.cat([a for a, _ in present]), parts, rank, False)


def _transposed(b: Tensor) -> Tensor:
    return b.t().contiguous()


def _tiles(b: Tensor) -> Tensor:
    """`b` `[out, rank]` as `[tiles, rank, 16]`, the last tile padded with zeros."""
    return pad(b, (0, 0, 0, -len(b) % _TILE)).unflatten(0, (-1, _TILE)).transpose(1, 2).contiguous()
