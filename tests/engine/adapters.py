"""Random adapters of every shape, as PEFT directories."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from kilonova.models.adapter import (
    AdapterConfig,
    adapter_layers,
    attach_adapter,
    load_adapter,
    merge_adapter,
    save_adapter,
)
from kilonova.models.decoder.model import Decoder

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
EVERYTHING = (*ATTENTION, "gate_proj", "up_proj", "down_proj")
RANKS = (1, 2, 3, 4, 7, 8, 16, 33, 64)
TARGETS: Sequence[tuple[str, ...]] = (
    EVERYTHING,
    ("q_proj",),
    ("q_proj", "v_proj"),
    ("layers.1.mlp.down_proj",),
    ("k_proj", "o_proj", "up_proj"),
    ("gate_proj",),
    ATTENTION,
)


def write_adapters(make: type[Decoder] | object, directory: Path, count: int, strength: float = 0.5) -> list[Path]:
    """Adapters over the decoders that `make` makes, no two alike."""
    paths = []
    for number in range(count):
        decoder = make()  # type: ignore[operator]
        config = AdapterConfig(
            rank=RANKS[number % len(RANKS)],
            alpha=3.0 + number,
            rslora=number % 3 == 2,
            target_modules=TARGETS[number % len(TARGETS)],
        )
        generator = torch.Generator().manual_seed(number)
        attach_adapter(decoder, config, generator)
        with torch.no_grad():
            for layer in adapter_layers(decoder).values():
                # Whatever the rank, about as large as the weights.
                size = strength * layer.weight.std() * layer.in_features**0.5 / layer.scaling / layer.rank**0.5
                layer.lora_B.normal_(0, 1, generator=generator).mul_(size * 3**0.5)
        paths.append(directory / f"adapter-{number}")
        save_adapter(decoder, paths[-1], base="base")
    return paths


def merged(decoder: Decoder, path: Path) -> Decoder:
    """`decoder` with the adapter of `path` folded in."""
    load_adapter(decoder, path)
    merge_adapter(decoder)
    return decoder.eval()
