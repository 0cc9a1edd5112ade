"""Sparse mixture-of-experts feed-forward layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class SparseMoE(nn.Module):
    """Top-k routed SwiGLU experts without shared experts or dropping (the Qwen3-MoE layer).

    Router probabilities are a float32 softmax over all experts; the `num_experts_per_tok` largest are kept and, with
    `norm_topk_prob`, renormalised to sum to one. Expert weights are stacked: `gate_up_proj`
    `[experts, 2 * intermediate, hidden]` and `down_proj` `[experts, hidden, intermediate]`.
    """

    def __init__(
        self,
        hidden_size: int,
        intermediate_size: int,
        num_experts: int,
        num_experts_per_tok: int,
        norm_topk_prob: bool,
    ) -> None:
        super().__init__()
        self.num_experts = num_experts
        self.num_experts_per_tok = num_experts_per_tok
        self.norm_topk_prob = norm_topk_prob
        self.gate = nn.Linear(hidden_size, num_experts, bias=False)
        self.gate_up_proj = nn.Parameter(torch.empty(num_experts, 2 * intermediate_size, hidden_size))
        self.down_proj = nn.Parameter(torch.empty(num_experts, hidden_size, intermediate_size))

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.reshape(-1, x.shape[-1])
        probabilities = self.gate(tokens).float().softmax(dim=-1)
        weights, chosen = probabilities.topk(self.num_experts_per_tok, dim=-1)
        if self.norm_topk_prob:
            weights = weights / weights.sum(dim=-1, keepdim=True)
        weights = weights.to(tokens.dtype)

        # Sort the (token, expert) pairs by expert, so that each expert runs once over a contiguous slice.
        expert_of_pair, order = chosen.flatten().sort(stable=True)
        token_of_pair = order // self.num_experts_per_tok
        counts = torch.bincount(expert_of_pair, minlength=self.num_experts)
        outputs = self.experts(tokens[token_of_pair], counts)
        weighted = outputs * weights.flatten()[order, None]
        return torch.zeros_like(tokens).index_add_(0, token_of_pair, weighted).view_as(x)

    def experts(self, rows: Tensor, counts: Tensor) -> Tensor:
        """What the experts make of `rows` `[N, hidden]`: the first `counts[0]` by expert 0, and so on."""
        return grouped_experts(rows, counts.tolist(), self.gate_up_proj, self.down_proj)


def grouped_experts(rows: Tensor, counts: Sequence[int], gate_up_proj: Tensor, down_proj: Tensor) -> Tensor:
    """SwiGLU of stacked experts over `rows` `[N, hidden]`: the first `counts[0]` by expert 0, and so on."""
    outputs = []
    for expert, part in enumerate(rows.split(list(counts))):
        # An empty part still gives the weights a gradient where no expert has rows.
        if len(part) or (expert == 0 and not len(rows)):
            gate, up = nn.functional.linear(part, gate_up_proj[expert]).chunk(2, dim=-1)
            outputs.append(nn.functional.linear(nn.functional.silu(gate) * up, down_proj[expert]))
    return torch.cat(outputs)
