"""Multi-head attention with grouped key-value heads.

The layer computes queries, keys and values; what they attend to is the caller's choice, given as an `attend`
function. Training passes packed causal attention, the engine passes its cache, and neither changes the layer.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from kilonova.nn.norm import RMSNorm
from kilonova.nn.rotary import apply_rotary


class Attend(Protocol):
    """Attention of `query` `[B, Hq, T, D]` over `key` and `value` `[B, Hkv, T, D]` and whatever came before them.

    `sliding_window` is the number of latest positions, the own one included, that a query may see (None: all).
    Returns `[B, Hq, T, D]`.
    """

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, layer_index: int, sliding_window: int | None
    ) -> Tensor: ...


class Attention(nn.Module):
    """Self-attention with rotary positions (arXiv 2305.13245 for grouped heads, 2302.05442 for query-key norm)."""

    def __init__(
        self,
        hidden_size: int,
        num_attention_heads: int,
        num_key_value_heads: int,
        head_dim: int,
        layer_index: int,
        *,
        qkv_bias: bool = False,
        output_bias: bool = False,
        qk_norm_eps: float | None = None,
        sliding_window: int | None = None,
    ) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.layer_index = layer_index
        self.sliding_window = sliding_window
        self.q_proj = nn.Linear(hidden_size, num_attention_heads * head_dim, bias=qkv_bias)
        self.k_proj = nn.Linear(hidden_size, num_key_value_heads * head_dim, bias=qkv_bias)
        self.v_proj = nn.Linear(hidden_size, num_key_value_heads * head_dim, bias=qkv_bias)
        self.o_proj = nn.Linear(num_attention_heads * head_dim, hidden_size, bias=output_bias)
        self.q_norm = RMSNorm(head_dim, qk_norm_eps) if qk_norm_eps is not None else None
        self.k_norm = RMSNorm(head_dim, qk_norm_eps) if qk_norm_eps is not None else None

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor], attend: Attend) -> Tensor:
        """`x` is `[B, T, hidden]`; `rotary` holds cos and sin that broadcast to `[B, heads, T, head_dim]`."""
        batch, length, _ = x.shape
        query = self.q_proj(x).view(batch, length, -1, self.head_dim)
        key = self.k_proj(x).view(batch, length, -1, self.head_dim)
        value = self.v_proj(x).view(batch, length, -1, self.head_dim)
        if self.q_norm is not None and self.k_norm is not None:
            query, key = self.q_norm(query), self.k_norm(key)
        query, key, value = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
        query, key = apply_rotary(query, *rotary), apply_rotary(key, *rotary)
        attended = attend(query, key, value, self.layer_index, self.sliding_window)
        return self.o_proj(attended.transpose(1, 2).reshape(batch, length, -1))


class PackedCausalAttention:
    """Causal attention over whole sequences, confined to documents when several share a row.

    `document_ids` `[B, T]` numbers the document of each position; None means one document a row.
    """

    def __init__(self, document_ids: Tensor | None = None) -> None:
        self.document_ids = document_ids
        self._masks: dict[tuple[int | None, torch.dtype], Tensor] = {}

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, layer_index: int, sliding_window: int | None
    ) -> Tensor:
        grouped = query.shape[1] != key.shape[1]
        mask = self.mask(query.shape[2], sliding_window, query)
        return nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=mask is None, enable_gqa=grouped
        )

    def mask(self, length: int, sliding_window: int | None, like: Tensor) -> Tensor | None:
        """What is added to the scores `[B, heads, length, length]` of queries `like` this; None for causal attention.

        It is made once and shared by all layers: each would convert, and keep for its backward pass, a Boolean one.
        """
        if self.document_ids is None and (sliding_window is None or sliding_window >= length):
            return None
        device = like.device
        dtype = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else like.dtype
        if (sliding_window, dtype) not in self._masks:
            allowed = self._allowed(length, sliding_window, device)
            zeros = torch.zeros(allowed.shape, dtype=dtype, device=device)
            self._masks[sliding_window, dtype] = zeros.masked_fill(~allowed, float("-inf"))
        return self._masks[sliding_window, dtype]

    def _allowed(self, length: int, sliding_window: int | None, device: torch.device) -> Tensor:
        positions = torch.arange(length, device=device)
        distance = positions[:, None] - positions[None, :]
        allowed = distance >= 0
        if sliding_window is not None:
            allowed = allowed & (distance < sliding_window)
        if self.document_ids is None:
            return allowed[None, None]
        same = self.document_ids[:, :, None] == self.document_ids[:, None, :]
        return (allowed & same)[:, None]
