from __future__ import annotations

import math

import pytest
import torch

from kilonova.nn.attention import Attention, PackedCausalAttention
from kilonova.nn.rotary import RotaryEmbedding


def formula(query, key, value, allowed):
    """Softmax attention as it is written, in float64; `allowed` is `[B, T, T]`."""
    repeats = query.shape[1] // key.shape[1]
    key, value = (tensor.double().repeat_interleave(repeats, dim=1) for tensor in (key, value))
    scores = query.double() @ key.transpose(2, 3) / math.sqrt(query.shape[-1])
    return scores.masked_fill(~allowed[:, None], -math.inf).softmax(-1) @ value


@pytest.mark.parametrize("key_value_heads", [1, 2, 4])
@pytest.mark.parametrize("window", [None, 1, 4, 11, 50])
@pytest.mark.parametrize("packed", [False, True])
def test_packed_causal_attention_is_the_masked_formula(key_value_heads, window, packed):
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(2, 4, 11, 8, generator=generator)
    key, value = torch.randn(2, 2, key_value_heads, 11, 8, generator=generator)
    document_ids = torch.tensor([[0] * 4 + [1] * 7, [3] * 10 + [4]]) if packed else None
    allowed = torch.ones(11, 11, dtype=torch.bool).tril().expand(2, 11, 11)
    if window is not None:
        allowed = allowed & torch.ones(11, 11, dtype=torch.bool).triu(1 - window)
    if document_ids is not None:
        allowed = allowed & (document_ids[:, :, None] == document_ids[:, None, :])
    attend = PackedCausalAttention(document_ids)
    expected = formula(query, key, value, allowed)
    for layer_index in range(2):
        attended = attend(query, key, value, layer_index, window)
        torch.testing.assert_close(attended.double(), expected, rtol=1e-5, atol=1e-5)


def test_the_layer_hands_its_index_and_window_to_attend():
    layer = Attention(16, 4, 2, 8, layer_index=3, qkv_bias=True, output_bias=True, sliding_window=5)
    seen = []

    def attend(query, key, value, layer_index, sliding_window):
        seen.append((query.shape, key.shape, value.shape, layer_index, sliding_window))
        return query

    cos, sin = RotaryEmbedding(8, 10_000.0)(torch.arange(6), torch.float32)
    output = layer(torch.randn(1, 6, 16), (cos[None, None], sin[None, None]), attend)
    assert output.shape == (1, 6, 16)
    assert seen == [((1, 4, 6, 8), (1, 2, 6, 8), (1, 2, 6, 8), 3, 5)]
