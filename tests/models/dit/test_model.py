from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from kilonova.core.errors import ConfigError
from kilonova.models.dit.config import DIT_PRESETS, DiTConfig
from kilonova.models.dit.model import DiT, DiTBlock
from kilonova.models.sizing import num_parameters
from kilonova.nn.rotary_2d import RotaryEmbedding2D

CONFIG = DiTConfig(in_channels=4, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, text_hidden_size=12)


def layer_norm(x):
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()


def rms(x, norm):
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * norm.weight


def softmax_attention(query, key, value, layer):
    query, key, value = (part.unflatten(-1, (2, 8)) for part in (query, key, value))
    query, key = rms(query, layer.q_norm), rms(key, layer.k_norm)
    scores = torch.einsum("bqhd,bkhd->bhqk", query, key) / math.sqrt(8)
    attended = torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), value).flatten(2)
    return attended @ layer.o_proj.weight.T + layer.o_proj.bias


def test_a_block_is_the_papers_formula():
    """Figure 2 of arXiv 2310.00426: scale and shift, self-attention, gate; cross-attention; the same for the MLP."""
    generator = torch.Generator().manual_seed(0)
    block = DiTBlock(CONFIG).double()
    for parameter in block.parameters():
        parameter.data.normal_(generator=generator)
    x = torch.randn(2, 6, 16, generator=generator, dtype=torch.float64)
    context = torch.randn(2, 4, 16, generator=generator, dtype=torch.float64)
    time = torch.randn(2, 6, 16, generator=generator, dtype=torch.float64)
    rotary = RotaryEmbedding2D(8, 100.0)
    at_origin, context_at_origin = (rotary(torch.zeros(tokens, 2), torch.float64) for tokens in (6, 4))
    given = block(x, time, context, at_origin, context_at_origin, None)

    shift1, scale1, gate1, shift2, scale2, gate2 = (
        (time + block.scale_shift_table)[:, index, None] for index in range(6)
    )
    inner = layer_norm(x) * (1 + scale1) + shift1
    query, key, value = (inner @ block.self_attention.qkv_proj.weight.T).chunk(3, -1)
    x = x + gate1 * softmax_attention(query, key, value, block.self_attention)
    key, value = (context @ block.cross_attention.kv_proj.weight.T).chunk(2, -1)
    x = x + softmax_attention(x @ block.cross_attention.q_proj.weight.T, key, value, block.cross_attention)
    inner = (layer_norm(x) * (1 + scale2) + shift2) @ block.fc1.weight.T + block.fc1.bias
    inner = inner / 2 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (inner + 0.044715 * inner**3)))
    x = x + gate2 * (inner @ block.fc2.weight.T + block.fc2.bias)
    torch.testing.assert_close(given, x, rtol=1e-5, atol=1e-5)


def test_cross_attention_adds_nothing_at_first():
    model = DiT(CONFIG)
    model.init_weights(torch.Generator().manual_seed(0))
    with torch.no_grad():
        model.proj_out.weight.normal_()
    latents, timestep = torch.randn(1, 4, 4, 4), torch.tensor([0.5])
    first = model(latents, timestep, torch.randn(1, 3, 12), None)
    assert first.any()
    assert torch.equal(model(latents, timestep, torch.randn(1, 5, 12), None), first)


@pytest.mark.parametrize(
    ("name", "millions"), [("tiny", (7, 9)), ("small", (24, 27)), ("base", (56, 60)), ("0.6b", (590, 625))]
)
def test_presets_have_the_size_of_their_rivals(name, millions):
    low, high = millions
    assert low * 1e6 < num_parameters(DIT_PRESETS[name]) < high * 1e6


def test_heads_that_cannot_be_turned_are_refused():
    with pytest.raises(ConfigError, match="hidden_size: 12 is not a multiple of 8"):
        replace(CONFIG, hidden_size=12)
