"""Bidirectional attention of one sequence over itself or over another."""

from __future__ import annotations

from torch import Tensor, nn

from kilonova.nn.norm import RMSNorm
from kilonova.nn.rotary import apply_rotary

Rotary = tuple[Tensor, Tensor]


class JointAttention(nn.Module):
    """Multi-head attention among all tokens of a sequence, with RMS-normed queries and keys (arXiv 2302.05442).

    `qk_norm` False leaves the norms out.
    """

    def __init__(self, hidden_size: int, num_attention_heads: int, *, qk_norm: bool = True) -> None:
        super().__init__()
        self.num_attention_heads = num_attention_heads
        head_dim = hidden_size // num_attention_heads
        self.qkv_proj = nn.Linear(hidden_size, 3 * hidden_size, bias=False)
        self.o_proj = nn.Linear(hidden_size, hidden_size)
        self.q_norm = RMSNorm(head_dim) if qk_norm else nn.Identity()
        self.k_norm = RMSNorm(head_dim) if qk_norm else nn.Identity()

    def forward(self, x: Tensor, rotary: Rotary | None = None, key_bias: Tensor | None = None) -> Tensor:
        """`x` is `[B, T, hidden]`; `rotary` holds cos and sin `[T, head_dim]`; `key_bias` is as in `attention`."""
        query, key, value = self.qkv_proj(x).unflatten(-1, (3, self.num_attention_heads, -1)).unbind(2)
        return self.o_proj(attention(self.q_norm(query), self.k_norm(key), value, rotary, rotary, key_bias))


class CrossAttention(nn.Module):
    """Multi-head attention of a sequence over a context, with RMS-normed queries and keys unless `qk_norm` is False."""

    def __init__(self, hidden_size: int, context_size: int, num_attention_heads: int, *, qk_norm: bool = True) -> None:
        super().__init__()
        self.num_attention_heads = num_attention_heads
        head_dim = hidden_size // num_attention_heads
        self.q_proj = nn.Linear(hidden_size, hidden_size, bias=False)
        self.kv_proj = nn.Linear(context_size, 2 * hidden_size, bias=False)
        self.o_proj = nn.Linear(hidden_size, hidden_size)
        self.q_norm = RMSNorm(head_dim) if qk_norm else nn.Identity()
        self.k_norm = RMSNorm(head_dim) if qk_norm else nn.Identity()

    def forward(
        self,
        x: Tensor,
        context: Tensor,
        query_rotary: Rotary | None = None,
        key_rotary: Rotary | None = None,
        key_bias: Tensor | None = None,
    ) -> Tensor:
        """`x` is `[B, T, hidden]`, `context` `[B, S, context]`; the rotary pairs are `[T or S, head_dim]`."""
        query = self.q_proj(x).unflatten(-1, (self.num_attention_heads, -1))
        key, value = self.kv_proj(context).unflatten(-1, (2, self.num_attention_heads, -1)).unbind(2)
        return self.o_proj(attention(self.q_norm(query), self.k_norm(key), value, query_rotary, key_rotary, key_bias))


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_rotary: Rotary | None,
    key_rotary: Rotary | None,
    key_bias: Tensor | None,
) -> Tensor:
    """What `query` `[B, T, heads, head_dim]` finds in `key` and `value` `[B, S, heads, head_dim]`: `[B, T, hidden]`.

    `key_bias` `[B, S]` is added to the scores of each key: the logarithm of a weight that multiplies its share, so 0
    leaves it as it is and -inf hides it. At least one key of each row must not be hidden.
    """
    query, key, value = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
    if query_rotary is not None:
        query = apply_rotary(query, *query_rotary)
    if key_rotary is not None:
        key = apply_rotary(key, *key_rotary)
    mask = None if key_bias is None else key_bias[:, None, None, :].to(query.dtype)
    attended = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    return attended.transpose(1, 2).flatten(2)
