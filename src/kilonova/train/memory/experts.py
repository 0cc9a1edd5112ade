"""A mixture-of-experts block as one autograd function, so that its experts keep what a dense layer keeps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from kilonova.nn.moe import SparseMoE
from kilonova.nn.norm import RMSNorm
from kilonova.train.memory import pointwise
from kilonova.train.memory.functions import compute_dtype, norm_linears


class _Experts(torch.autograd.Function):
    """Norm, chosen experts and their weighted sum; kept are the input, the routing and every expert's gate and up.

    The gradient of a routing weight needs no output of an expert: `<grad, down(product)>` is `<grad @ down, product>`
    (arXiv 2512.14080, section 3).
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        kept_x: Tensor | None,
        norm_weight: Tensor,
        eps: float,
        dtype: torch.dtype,
        pair_weights: Tensor,
        gate_up_proj: Tensor,
        down_proj: Tensor,
        token_of_pair: Tensor,
        counts: Sequence[int],
        compressed: bool,
    ) -> Tensor:
        rows = pointwise.rms_norm(x, norm_weight, eps, dtype).flatten(0, -2)[token_of_pair]
        gate_up = torch.cat([rows[part] @ gate_up_proj[expert].to(dtype).t() for expert, part in _parts(counts)])
        gate, up = gate_up.chunk(2, dim=-1)
        if compressed:
            product, *kept = pointwise.swiglu_quantize(gate, up)
        else:
            product, kept = pointwise.swiglu(gate, up), [gate_up]
        outputs = [product[part] @ down_proj[expert].to(dtype).t() for expert, part in _parts(counts)]
        weighted = torch.cat(outputs) * pair_weights[:, None]
        ctx.save_for_backward(
            x if kept_x is None else kept_x, norm_weight, pair_weights, gate_up_proj, down_proj, token_of_pair, *kept
        )
        ctx.eps, ctx.dtype, ctx.x_dtype, ctx.counts, ctx.compressed = eps, dtype, x.dtype, counts, compressed
        total = weighted.new_zeros(x.shape[:-1].numel(), x.shape[-1])
        return total.index_add_(0, token_of_pair, weighted).view_as(x)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        kept_x, norm_weight, pair_weights, gate_up_proj, down_proj, token_of_pair, *kept = ctx.saved_tensors
        x, dtype = kept_x.to(ctx.x_dtype), ctx.dtype
        normed = pointwise.rms_norm(x, norm_weight, ctx.eps, dtype)
        rows = normed.flatten(0, -2)[token_of_pair]
        grad_rows = grad_outputs[0].flatten(0, -2)[token_of_pair].to(dtype)
        back = torch.cat([grad_rows[part] @ down_proj[expert].to(dtype) for expert, part in _parts(ctx.counts)])
        weighted_back = (back * pair_weights[:, None]).to(dtype)
        if ctx.compressed:
            product, grad_gate, grad_up = pointwise.swiglu_backward_quantized(weighted_back, *kept)
        else:
            product, grad_gate, grad_up = pointwise.swiglu_backward(weighted_back, *kept[0].chunk(2, dim=-1))
        grad_pair_weights = (back.float() * product.float()).sum(dim=-1).to(pair_weights.dtype)
        grad_gate_up = torch.cat((grad_gate, grad_up), dim=-1)
        weighted_rows = (grad_rows * pair_weights[:, None]).to(dtype)

        grad_gate_up_proj, grad_down_proj = torch.zeros_like(gate_up_proj), torch.zeros_like(down_proj)
        back_rows = []
        for expert, part in _parts(ctx.counts):
            grad_gate_up_proj[expert] = grad_gate_up[part].t() @ rows[part]
            grad_down_proj[expert] = weighted_rows[part].t() @ product[part]
            back_rows.append(grad_gate_up[part] @ gate_up_proj[expert].to(dtype))
        grad_normed = torch.zeros_like(normed.flatten(0, -2)).index_add_(0, token_of_pair, torch.cat(back_rows))
        grad_x, grad_norm_weight = pointwise.rms_norm_backward(grad_normed.view_as(x), x, norm_weight, ctx.eps)
        nothing = (None, None)
        return (
            *(grad_x, None, grad_norm_weight, *nothing),
            *(grad_pair_weights, grad_gate_up_proj, grad_down_proj, None, *nothing),
        )


def _parts(counts: Sequence[int]) -> Iterator[tuple[int, slice]]:
    """The experts that were chosen at all, each with its rows."""
    start = 0
    for expert, count in enumerate(counts):
        if count:
            yield expert, slice(start, start + count)
            start += count


@torch.compiler.disable
def norm_experts(x: Tensor, kept_x: Tensor | None, norm: RMSNorm, moe: SparseMoE, *, compressed: bool) -> Tensor:
    """`moe(norm(x))`, keeping `x` (or `kept_x`), the routing and every expert's gate and up.

    `compressed` keeps gate and up as int8. How many rows an expert gets is decided by the data, so a compiled model
    leaves this part to eager mode.
    """
    (logits,) = norm_linears(x, kept_x, norm, [moe.gate])
    probabilities = logits.flatten(0, -2).float().softmax(dim=-1)
    weights, chosen = probabilities.topk(moe.num_experts_per_tok, dim=-1)
    if moe.norm_topk_prob:
        weights = weights / weights.sum(dim=-1, keepdim=True)
    expert_of_pair, order = chosen.flatten().sort(stable=True)
    counts = torch.bincount(expert_of_pair, minlength=moe.num_experts).tolist()
    return _Experts.apply(
        x,
        kept_x,
        norm.weight,
        norm.eps,
        compute_dtype(x),
        weights.to(x.dtype).flatten()[order],
        moe.gate_up_proj,
        moe.down_proj,
        order // moe.num_experts_per_tok,
        counts,
        compressed,
    )
