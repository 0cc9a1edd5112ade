from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import layer_norm

from kilonova.core.errors import ConfigError
from kilonova.models.sizing import forward_flops, num_parameters
from kilonova.models.uvit.config import UVIT_PRESETS, UViTConfig
from kilonova.models.uvit.model import UViT, UViTBlock
from kilonova.nn.rotary_2d import RotaryEmbedding2D, grid_positions

CONFIG = UViTConfig(in_channels=4, hidden_size=16, num_hidden_layers=5, num_attention_heads=2, text_hidden_size=12)


def gelu(x):
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


@pytest.mark.parametrize("skip", [True, False])
def test_a_block_is_the_papers_formula(skip):
    """x <- Linear([x, skip]); x <- x + MSA(LN(x)); x <- x + MLP(LN(x)): arXiv 2209.12152, figures 1 and 2 (a)."""
    generator = torch.Generator().manual_seed(0)
    block = UViTBlock(CONFIG, skip=skip).double()
    for parameter in block.parameters():
        parameter.data.normal_(generator=generator)
    x, earlier = torch.randn(2, 2, 6, 16, generator=generator, dtype=torch.float64)
    positions = grid_positions(2, 3)
    rotary = RotaryEmbedding2D(8, 100.0)(positions, torch.float64)
    given = block(x, earlier if skip else None, rotary, None)

    if skip:
        weight = block.skip_proj.weight
        x = x @ weight[:, :16].T + earlier @ weight[:, 16:].T + block.skip_proj.bias
    normed = layer_norm(x, (16,), block.norm1.weight, block.norm1.bias)
    query, key, value = (
        part.unflatten(-1, (2, 8)) for part in (normed @ block.attention.qkv_proj.weight.T).chunk(3, -1)
    )
    query, key = (
        part / (part.square().mean(-1, keepdim=True) + 1e-6).sqrt() * norm.weight
        for part, norm in ((query, block.attention.q_norm), (key, block.attention.k_norm))
    )
    frequencies = 100.0 ** -torch.tensor([0.0, 0.5], dtype=torch.float64)
    angles = (positions.double()[:, :, None] * frequencies).flatten(1)[:, None]
    query, key = (
        torch.cat((a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()), dim=-1)
        for a, b in (part.chunk(2, -1) for part in (query, key))
    )
    scores = torch.einsum("bqhd,bkhd->bhqk", query, key) / math.sqrt(8)
    attended = torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), value).flatten(2)
    x = x + attended @ block.attention.o_proj.weight.T + block.attention.o_proj.bias
    normed = layer_norm(x, (16,), block.norm2.weight, block.norm2.bias)
    x = x + gelu(normed @ block.fc1.weight.T + block.fc1.bias) @ block.fc2.weight.T + block.fc2.bias
    torch.testing.assert_close(given, x, rtol=1e-5, atol=1e-5)


def test_long_skips_join_the_first_block_with_the_last():
    model = UViT(CONFIG)
    seen = []

    def record(block, arguments, output):
        seen.append((block, arguments[1], output))

    for block in (*model.in_blocks, model.mid_block, *model.out_blocks):
        block.register_forward_hook(record)
    model(torch.randn(1, 4, 4, 6), torch.zeros(1), torch.randn(1, 3, 12), None)
    blocks, skips, outputs = zip(*seen, strict=True)
    assert list(blocks) == [*model.in_blocks, model.mid_block, *model.out_blocks]
    assert skips[:3] == (None, None, None)
    assert skips[3] is outputs[1]
    assert skips[4] is outputs[0]


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("tiny", (5, 8)),
        ("small", (24, 27)),
        ("base", (56, 60)),
        ("0.3b", (280, 310)),
        ("0.9b", (870, 930)),
        ("2.3b", (2300, 2400)),
    ],
)
def test_presets_have_the_size_they_are_named_for(name, millions):
    low, high = millions
    assert low * 1e6 < num_parameters(UVIT_PRESETS[name]) < high * 1e6


def test_operations_are_those_of_the_matrices_and_of_attention():
    config = UVIT_PRESETS["tiny"]
    hidden, layers, text, pictures = config.hidden_size, config.num_hidden_layers, 32, 64
    tokens = 1 + text + pictures
    blocks = layers * 12 * hidden**2 + layers // 2 * 2 * hidden**2
    patches = 2 * pictures * hidden * config.in_channels * config.patch_size**2
    embedding = 2 * hidden**2 + text * config.text_hidden_size * hidden
    attention = layers * 2 * tokens**2 * hidden
    assert forward_flops(config, 16, 16, text) == 2 * (tokens * blocks + patches + embedding + attention)


def test_an_even_depth_and_heads_that_cannot_be_turned_are_refused():
    with pytest.raises(ConfigError, match="num_hidden_layers: 4 is even"):
        replace(CONFIG, num_hidden_layers=4)
    with pytest.raises(ConfigError, match="hidden_size: 12 is not a multiple of 8"):
        replace(CONFIG, hidden_size=12)
