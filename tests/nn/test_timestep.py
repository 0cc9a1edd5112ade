from __future__ import annotations

import math

import torch

from kilonova.nn.timestep import TimestepEmbedding, sinusoidal_embedding


def test_sinusoids_are_those_of_the_formula():
    values = torch.tensor([0.0, 0.3, 17.0])
    for value, row in zip(values.tolist(), sinusoidal_embedding(values, 6, 100.0).tolist(), strict=True):
        angles = [value * 100.0 ** -(i / 3) for i in range(3)]
        expected = [math.cos(angle) for angle in angles] + [math.sin(angle) for angle in angles]
        torch.testing.assert_close(row, expected, rtol=1e-5, atol=1e-5)


def test_the_embedding_is_two_layers_over_the_thousandfold():
    layer = TimestepEmbedding(8, 5)
    timestep = torch.tensor([0.0, 0.25, 1.0])
    inner = layer.linear_1(sinusoidal_embedding(1000 * timestep, 8))
    torch.testing.assert_close(layer(timestep), layer.linear_2(inner * inner.sigmoid()))


def test_it_computes_angles_in_float32_in_a_bfloat16_model():
    layer = TimestepEmbedding(64, 16).bfloat16()
    near = layer(torch.tensor([0.9990, 0.9992]))
    assert near.dtype == torch.bfloat16
    assert not torch.equal(near[0], near[1])
