from __future__ import annotations

import torch
from torch import nn

from kilonova.nn.initialization import init_layers, zero_layer


def test_weights_have_xaviers_variance_and_come_from_the_generator():
    model = nn.Sequential(nn.Linear(300, 100), nn.Conv2d(20, 30, 3))
    init_layers(model, torch.Generator().manual_seed(0))
    torch.testing.assert_close(model[0].weight.std().item(), (2 / 400) ** 0.5, rtol=0.03, atol=0)
    torch.testing.assert_close(model[1].weight.std().item(), (2 / 450) ** 0.5, rtol=0.03, atol=0)
    assert not model[0].bias.any()
    first = model[0].weight.clone()
    init_layers(model, torch.Generator().manual_seed(0))
    assert torch.equal(model[0].weight, first)


def test_a_zeroed_layer_answers_with_zeros():
    layer = nn.Conv2d(3, 4, 3, padding=1)
    zero_layer(layer)
    assert not layer(torch.randn(1, 3, 5, 5)).any()
