from __future__ import annotations

import math

import pytest
import torch

from kilonova.nn.joint_attention import CrossAttention, JointAttention
from kilonova.nn.rotary_2d import RotaryEmbedding2D, grid_positions


def heads(x, count):
    return x.unflatten(-1, (count, -1)).transpose(1, 2)


def rms(x, weight):
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight


def rotate(x, positions, theta):
    """Each pair (i, i + d / 2) turned by its own angle, the first half of them by row and the rest by column."""
    quarter = x.shape[-1] // 4
    frequencies = theta ** -(torch.arange(quarter, dtype=torch.float64) / quarter)
    angles = (positions.double()[:, :, None] * frequencies).flatten(1)
    pairs = torch.complex(*x.chunk(2, dim=-1)) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat((pairs.real, pairs.imag), dim=-1)


def softmax_attention(query, key, value, weights):
    scores = (query @ key.transpose(2, 3) / math.sqrt(query.shape[-1])).exp() * weights[:, None, None]
    return (scores / scores.sum(-1, keepdim=True) @ value).transpose(1, 2).flatten(2)


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 6, 16, generator=generator, dtype=torch.float64)
    context = torch.randn(2, 4, 12, generator=generator, dtype=torch.float64)
    return x, context


def randomised(module):
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        parameter.data.normal_(generator=generator)
    return module.double()


@pytest.mark.parametrize("qk_norm", [True, False])
def test_joint_attention_is_the_formula(inputs, qk_norm):
    x, _ = inputs
    layer = randomised(JointAttention(16, 2, qk_norm=qk_norm))
    positions = grid_positions(2, 3)
    rotary = RotaryEmbedding2D(8, 100.0)(positions, torch.float64)
    weights = torch.rand(2, 6, dtype=torch.float64)
    weights[0, 2] = 0
    query, key, value = (heads(part, 2) for part in (x @ layer.qkv_proj.weight.T).chunk(3, dim=-1))
    if qk_norm:
        query, key = rms(query, layer.q_norm.weight), rms(key, layer.k_norm.weight)
    attended = softmax_attention(rotate(query, positions, 100.0), rotate(key, positions, 100.0), value, weights)
    expected = attended @ layer.o_proj.weight.T + layer.o_proj.bias
    torch.testing.assert_close(layer(x, rotary, weights.log()), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("qk_norm", [True, False])
def test_cross_attention_is_the_formula(inputs, qk_norm):
    x, context = inputs
    layer = randomised(CrossAttention(16, 12, 2, qk_norm=qk_norm))
    query_positions, key_positions = grid_positions(2, 3), grid_positions(4, 1)
    rotary = RotaryEmbedding2D(8, 100.0)
    weights = torch.tensor([[1.0, 0.5, 0, 0], [0, 0.25, 1, 1]], dtype=torch.float64)
    query = heads(x @ layer.q_proj.weight.T, 2)
    key, value = (heads(part, 2) for part in (context @ layer.kv_proj.weight.T).chunk(2, dim=-1))
    if qk_norm:
        query, key = rms(query, layer.q_norm.weight), rms(key, layer.k_norm.weight)
    query, key = rotate(query, query_positions, 100.0), rotate(key, key_positions, 100.0)
    expected = softmax_attention(query, key, value, weights) @ layer.o_proj.weight.T + layer.o_proj.bias
    given = layer(
        x, context, rotary(query_positions, torch.float64), rotary(key_positions, torch.float64), weights.log()
    )
    torch.testing.assert_close(given, expected, rtol=1e-5, atol=1e-5)
