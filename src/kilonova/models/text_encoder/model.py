"""The text transformer that is trained together with a backbone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kilonova.models.text_encoder.config import TextTransformerConfig
from kilonova.models.text_encoder.states import TextStates, masked_states
from kilonova.nn.attention import Attend, Attention
from kilonova.nn.initialization import init_layers
from kilonova.nn.mlp import GatedMLP
from kilonova.nn.norm import RMSNorm
from kilonova.nn.rotary import RotaryEmbedding


class PaddedAttention:
    """Attention of every token to all tokens of its text, an `Attend`; `mask` `[B, T]` says which are there.

    In a text without any token every place sees every other, as something has to be seen.
    """

    def __init__(self, mask: Tensor) -> None:
        self.allowed = (mask | ~mask.any(1, keepdim=True))[:, None, None, :]

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, layer_index: int, sliding_window: int | None
    ) -> Tensor:
        return nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=self.allowed)


class TextTransformerLayer(nn.Module):
    """Pre-norm attention and gated feed-forward, each with a residual connection."""

    def __init__(self, config: TextTransformerConfig, layer_index: int) -> None:
        super().__init__()
        heads = config.num_attention_heads
        self.norm1 = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.attention = Attention(
            config.hidden_size,
            heads,
            heads,
            config.hidden_size // heads,
            layer_index,
            qk_norm_eps=config.rms_norm_eps,
        )
        self.norm2 = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = GatedMLP(config.hidden_size, config.intermediate_size)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor], attend: Attend) -> Tensor:
        x = x + self.attention(self.norm1(x), rotary, attend)
        return x + self.mlp(self.norm2(x))


class TextTransformer(nn.Module):
    """A bidirectional transformer with rotary positions over token ids.

    Weights are of no use until `init_weights` draws them or a checkpoint fills them.
    """

    def __init__(self, config: TextTransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding.from_pretrained(
            torch.zeros(config.vocab_size, config.hidden_size), freeze=False
        )
        self.layers = nn.ModuleList(TextTransformerLayer(config, index) for index in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.rotary = RotaryEmbedding(config.hidden_size // config.num_attention_heads, config.rope_theta)

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Draw fresh weights, the embedding's of variance 1, as a norm is the first thing to follow."""
        init_layers(self, generator)
        self.embed_tokens.weight.normal_(generator=generator)

    def forward(self, input_ids: Tensor, mask: Tensor) -> TextStates:
        """States of `input_ids` `[B, T]`, of which `mask` `[B, T]` (bool) are tokens, padded on the right."""
        x = self.embed_tokens(input_ids)
        if not x.shape[1]:
            return masked_states(x, mask)
        positions = torch.arange(x.shape[1], device=x.device)
        rotary = self.rotary(positions, x.dtype)
        attend = PaddedAttention(mask)
        for layer in self.layers:
            x = layer(x, rotary, attend)
        return masked_states(self.norm(x), mask)
