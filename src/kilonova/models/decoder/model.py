"""The decoder-only transformer behind every text model of the family."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kilonova.models.decoder.config import DecoderConfig
from kilonova.nn.attention import Attend, Attention, PackedCausalAttention
from kilonova.nn.mlp import GatedMLP
from kilonova.nn.moe import SparseMoE
from kilonova.nn.norm import RMSNorm
from kilonova.nn.quantized import num_quantized_weights
from kilonova.nn.rotary import RotaryEmbedding


class DecoderLayer(nn.Module):
    """Pre-norm attention and feed-forward, each with a residual connection."""

    def __init__(self, config: DecoderConfig, layer_index: int) -> None:
        super().__init__()
        self.self_attn = Attention(
            config.hidden_size,
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
            layer_index,
            qkv_bias=config.qkv_bias,
            output_bias=config.output_bias,
            qk_norm_eps=config.rms_norm_eps if config.qk_norm else None,
            sliding_window=config.window(layer_index),
        )
        self.mlp: GatedMLP | SparseMoE
        if layer_index in config.moe_layers:
            self.mlp = SparseMoE(
                config.hidden_size,
                config.moe_intermediate_size,
                config.num_experts,
                config.num_experts_per_tok,
                config.norm_topk_prob,
            )
        else:
            self.mlp = GatedMLP(config.hidden_size, config.intermediate_size)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor], attend: Attend) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), rotary, attend)
        return x + self.mlp(self.post_attention_layernorm(x))


class DecoderStack(nn.Module):
    """Embedding, layers and final norm: everything but the output projection."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        # The default initialisation imports half of torch's compiler when it runs on the meta device.
        self.embed_tokens = nn.Embedding.from_pretrained(
            torch.zeros(config.vocab_size, config.hidden_size), freeze=False
        )
        self.layers = nn.ModuleList(DecoderLayer(config, index) for index in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.rotary = RotaryEmbedding(
            config.head_dim, config.rope_theta, config.rope_scaling, config.max_position_embeddings
        )

    def forward(self, input_ids: Tensor, position_ids: Tensor, attend: Attend) -> Tensor:
        x = self.embed_tokens(input_ids)
        cos, sin = self.rotary(position_ids, x.dtype)
        rotary = (cos.unsqueeze(-3), sin.unsqueeze(-3))
        for layer in self.layers:
            x = layer(x, rotary, attend)
        return self.norm(x)


class Decoder(nn.Module):
    """A causal language model whose parameter names are those of the Hugging Face layouts.

    Its weights are of no use until `init_weights` draws them or a checkpoint fills them.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.model = DecoderStack(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    def hidden_states(
        self,
        input_ids: Tensor,
        *,
        position_ids: Tensor | None = None,
        document_ids: Tensor | None = None,
        attend: Attend | None = None,
    ) -> Tensor:
        """Final hidden states `[B, T, hidden]` of `input_ids` `[B, T]`.

        `document_ids` `[B, T]` keeps packed documents apart; `attend` replaces whole-sequence attention, and then
        `position_ids` `[B, T]` says where the tokens stand.
        """
        if position_ids is None:
            position_ids = torch.arange(input_ids.shape[1], device=input_ids.device)
        return self.model(input_ids, position_ids, attend or PackedCausalAttention(document_ids))

    def forward(
        self,
        input_ids: Tensor,
        *,
        position_ids: Tensor | None = None,
        document_ids: Tensor | None = None,
        attend: Attend | None = None,
    ) -> Tensor:
        """Logits `[B, T, vocab]` of the next token at every position."""
        hidden = self.hidden_states(input_ids, position_ids=position_ids, document_ids=document_ids, attend=attend)
        return self.lm_head(hidden)

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Draw fresh weights: normal with `initializer_range`, residual outputs shrunk by depth (GPT-2)."""
        std = self.config.initializer_range
        for name, parameter in self.named_parameters():
            if parameter.ndim < 2:
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)
                continue
            residual = name.endswith(("o_proj.weight", "down_proj.weight", "down_proj"))
            scale = std / (2 * self.config.num_hidden_layers) ** 0.5 if residual else std
            parameter.normal_(0.0, scale, generator=generator)

    def num_parameters(self) -> int:
        """Parameters and quantised weights, tied ones counted once."""
        return sum(parameter.numel() for parameter in self.parameters()) + num_quantized_weights(self)

    def flops_per_token(self, sequence_length: int) -> float:
        """Training FLOPs of one token at full causal attention: 6 per active matrix weight, plus attention.

        The embedding look-up costs nothing; a tied one counts once, for the output projection (arXiv 2204.02311,
        appendix B, halved for causality). Frozen weights under an adapter cost 4, as they need no gradient.
        """
        config = self.config
        embedding = 0 if config.tie_word_embeddings else self.model.embed_tokens.weight.numel()
        active = sum(parameter.numel() for parameter in self.parameters() if parameter.ndim >= 2) - embedding
        if config.moe_layers:
            expert = 3 * config.hidden_size * config.moe_intermediate_size
            active -= len(config.moe_layers) * (config.num_experts - config.num_experts_per_tok) * expert
        attention = 6 * config.num_hidden_layers * config.num_attention_heads * config.head_dim * sequence_length
        adapter = sum(p.numel() for name, p in self.named_parameters() if p.ndim >= 2 and ".lora_" in name)
        return 6.0 * active + attention - (2.0 * (active - adapter) if adapter else 0.0)
