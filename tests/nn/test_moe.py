from __future__ import annotations

import pytest
import torch

from kilonova.nn.moe import SparseMoE


def layer(norm_topk_prob: bool, experts: int = 6, chosen: int = 2) -> SparseMoE:
    moe = SparseMoE(8, 12, experts, chosen, norm_topk_prob)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in moe.parameters():
            parameter.normal_(0, 0.5, generator=generator)
    return moe


def direct(moe: SparseMoE, x: torch.Tensor) -> torch.Tensor:
    """The formula token by token, with the weights of `moe` in float64."""
    router, gate_up, down = (tensor.double() for tensor in (moe.gate.weight, moe.gate_up_proj, moe.down_proj))
    rows = []
    for token in x.double().reshape(-1, x.shape[-1]):
        probabilities = (router @ token).softmax(0)
        best = probabilities.argsort(descending=True)[: moe.num_experts_per_tok]
        total = probabilities[best].sum() if moe.norm_topk_prob else 1.0
        row = torch.zeros_like(token)
        for expert in best:
            gate, up = (gate_up[expert] @ token).chunk(2)
            row = row + probabilities[expert] / total * (down[expert] @ (gate * gate.sigmoid() * up))
        rows.append(row)
    return torch.stack(rows).view(x.shape)


@pytest.mark.parametrize("norm_topk_prob", [True, False])
@pytest.mark.parametrize("chosen", [1, 2, 6])
def test_output_and_gradients_are_those_of_the_formula(norm_topk_prob, chosen):
    moe = layer(norm_topk_prob, chosen=chosen)
    x = torch.randn(2, 9, 8, generator=torch.Generator().manual_seed(1), requires_grad=True)
    output = moe(x)
    expected = direct(moe, x)
    torch.testing.assert_close(output.double(), expected, rtol=1e-5, atol=1e-5)

    inputs = [x, *moe.parameters()]
    direction = torch.randn(2, 9, 8, generator=torch.Generator().manual_seed(2))
    ours = torch.autograd.grad((output * direction).sum(), inputs)
    theirs = torch.autograd.grad((expected * direction).sum(), inputs)
    for mine, formula in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, formula, rtol=1e-4, atol=1e-4)


def test_experts_without_tokens_are_skipped():
    moe = layer(norm_topk_prob=True, experts=50, chosen=1)
    x = torch.randn(1, 3, 8, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(moe(x).double(), direct(moe, x), rtol=1e-5, atol=1e-5)
