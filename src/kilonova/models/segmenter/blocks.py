"""Transformer blocks of the segmenter, and positions that say where in a picture a token is."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kilonova.nn.joint_attention import JointAttention, Rotary
from kilonova.nn.norm import RMSNorm


class FeedForward(nn.Module):
    """A layer norm, and two linear layers around GELU."""

    def __init__(self, hidden_size: int, mlp_ratio: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden_size)
        self.fc1 = nn.Linear(hidden_size, mlp_ratio * hidden_size)
        self.fc2 = nn.Linear(mlp_ratio * hidden_size, hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(nn.functional.gelu(self.fc1(self.norm(x))))


class EncoderLayer(nn.Module):
    """Pre-norm attention among all tokens and feed-forward, each with a residual connection."""

    def __init__(self, hidden_size: int, num_attention_heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden_size)
        self.attention = JointAttention(hidden_size, num_attention_heads)
        self.mlp = FeedForward(hidden_size, mlp_ratio)

    def forward(self, x: Tensor, rotary: Rotary, key_bias: Tensor | None = None) -> Tensor:
        """`x` is `[B, T, hidden]`; `rotary` and `key_bias` are as in `JointAttention`."""
        x = x + self.attention(self.norm(x), rotary, key_bias)
        return x + self.mlp(x)


class MaskedCrossAttention(nn.Module):
    """Multi-head attention of queries over those of a context's tokens that each may see (arXiv 2112.01527, section
    3.2.1), with RMS-normed queries and keys."""

    def __init__(self, hidden_size: int, num_attention_heads: int) -> None:
        super().__init__()
        self.num_attention_heads = num_attention_heads
        self.q_proj = nn.Linear(hidden_size, hidden_size, bias=False)
        self.kv_proj = nn.Linear(hidden_size, 2 * hidden_size, bias=False)
        self.o_proj = nn.Linear(hidden_size, hidden_size)
        self.q_norm = RMSNorm(hidden_size // num_attention_heads)
        self.k_norm = RMSNorm(hidden_size // num_attention_heads)

    def forward(self, x: Tensor, context: Tensor, allowed: Tensor) -> Tensor:
        """`x` is `[B, Q, hidden]`, `context` `[B, S, hidden]`, `allowed` bool `[B, Q, S]` with a True in each row."""
        query = self.q_proj(x).unflatten(-1, (self.num_attention_heads, -1))
        key, value = self.kv_proj(context).unflatten(-1, (2, self.num_attention_heads, -1)).unbind(2)
        attended = nn.functional.scaled_dot_product_attention(
            self.q_norm(query).transpose(1, 2),
            self.k_norm(key).transpose(1, 2),
            value.transpose(1, 2),
            attn_mask=allowed[:, None],
        )
        return self.o_proj(attended.transpose(1, 2).flatten(2))


class DecoderLayer(nn.Module):
    """Pre-norm attention of queries over a context, then among themselves, and feed-forward, each residual."""

    def __init__(self, hidden_size: int, num_attention_heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(hidden_size)
        self.cross_attention = MaskedCrossAttention(hidden_size, num_attention_heads)
        self.norm2 = nn.LayerNorm(hidden_size)
        self.self_attention = JointAttention(hidden_size, num_attention_heads)
        self.mlp = FeedForward(hidden_size, mlp_ratio)

    def forward(self, queries: Tensor, context: Tensor, allowed: Tensor) -> Tensor:
        """`queries` `[B, Q, hidden]`; the others are as in `MaskedCrossAttention`."""
        queries = queries + self.cross_attention(self.norm1(queries), context, allowed)
        queries = queries + self.self_attention(self.norm2(queries))
        return queries + self.mlp(queries)


def sine_positions(height: int, width: int, hidden_size: int, device: torch.device | None = None) -> Tensor:
    """Sines and cosines of the places of a `height` x `width` grid, row by row: `[height * width, hidden_size]`.

    Rows and columns count as shares of the picture, as in DETR (arXiv 2005.12872), so that pictures of every size have
    the same at the same place. Frequencies run from half a turn to 32 turns across it.
    """
    frequencies = torch.pi * 2 ** torch.linspace(0, 6, hidden_size // 4, device=device)
    rows = (torch.arange(height, device=device) + 0.5)[:, None] / height * frequencies
    columns = (torch.arange(width, device=device) + 0.5)[:, None] / width * frequencies
    down = torch.cat((rows.sin(), rows.cos()), dim=-1)[:, None].expand(-1, width, -1)
    across = torch.cat((columns.sin(), columns.cos()), dim=-1).expand(height, -1, -1)
    return torch.cat((down, across), dim=-1).flatten(0, 1)
