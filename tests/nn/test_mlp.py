from __future__ import annotations

import torch

from kilonova.nn.mlp import GatedMLP


def test_gated_mlp_is_the_formula():
    torch.manual_seed(0)
    mlp = GatedMLP(8, 20)
    x = torch.randn(3, 5, 8)
    gate, up = x @ mlp.gate_proj.weight.t(), x @ mlp.up_proj.weight.t()
    expected = (gate / (1 + torch.exp(-gate)) * up) @ mlp.down_proj.weight.t()
    torch.testing.assert_close(mlp(x), expected)
