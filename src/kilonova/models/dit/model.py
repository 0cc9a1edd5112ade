"""The cross-attention DiT with adaLN-single (PixArt-alpha, arXiv 2310.00426)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kilonova.models.backbone import check_latents, resolve_step_size
from kilonova.models.condition import Condition
from kilonova.models.condition_tokens import (
    ConditionTokens,
    TextProjection,
    join,
    kept_channels,
    key_bias,
    without_position,
)
from kilonova.models.dit.config import DiTConfig
from kilonova.nn.initialization import init_layers, zero_layer
from kilonova.nn.joint_attention import CrossAttention, JointAttention, Rotary
from kilonova.nn.patches import PatchEmbedding, unpatchify
from kilonova.nn.rotary_2d import RotaryEmbedding2D, grid_positions
from kilonova.nn.timestep import TimestepEmbedding

_EMBEDDING_STD = 0.02


class DiTBlock(nn.Module):
    """Self-attention and feed-forward, scaled, shifted and gated by time, with cross-attention between them.

    The six vectors that do so are one projection of the time for all blocks plus this block's `scale_shift_table`
    (arXiv 2310.00426, section 2.3).
    """

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        hidden_size, heads = config.hidden_size, config.num_attention_heads
        self.scale_shift_table = nn.Parameter(torch.zeros(6, hidden_size))
        self.norm1 = nn.LayerNorm(hidden_size, elementwise_affine=False)
        self.self_attention = JointAttention(hidden_size, heads)
        self.cross_attention = CrossAttention(hidden_size, hidden_size, heads)
        self.norm2 = nn.LayerNorm(hidden_size, elementwise_affine=False)
        self.fc1 = nn.Linear(hidden_size, config.mlp_ratio * hidden_size)
        self.fc2 = nn.Linear(config.mlp_ratio * hidden_size, hidden_size)

    def forward(
        self, x: Tensor, time: Tensor, context: Tensor, rotary: Rotary, context_rotary: Rotary, bias: Tensor | None
    ) -> Tensor:
        modulation = (time + self.scale_shift_table).unsqueeze(2).unbind(1)
        shift1, scale1, gate1, shift2, scale2, gate2 = modulation
        x = x + gate1 * self.self_attention(self.norm1(x) * (1 + scale1) + shift1, rotary)
        x = x + self.cross_attention(x, context, rotary, context_rotary, bias)
        inner = nn.functional.gelu(self.fc1(self.norm2(x) * (1 + scale2) + shift2), approximate="tanh")
        return x + gate2 * self.fc2(inner)


class DiT(nn.Module):
    """A backbone whose picture tokens attend to each other, and by cross-attention to text and conditions.

    One learned token is always among the latter, so that there is something to attend to without a text. Weights are
    of no use until `init_weights` draws them or a checkpoint fills them.
    """

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config
        hidden_size = config.hidden_size
        self.patch_embed = PatchEmbedding(config.in_channels, config.patch_size, hidden_size)
        self.inpaint_embed = PatchEmbedding(config.in_channels + 1, config.patch_size, hidden_size, bias=False)
        self.time_embed = TimestepEmbedding(hidden_size, hidden_size)
        self.step_size_embed = TimestepEmbedding(hidden_size, hidden_size) if config.step_size_embeds else None
        self.time_proj = nn.Linear(hidden_size, 6 * hidden_size)
        self.text_proj = TextProjection(config.text_hidden_size, hidden_size)
        self.null_token = nn.Parameter(torch.zeros(hidden_size))
        self.condition_tokens = ConditionTokens(hidden_size)
        self.rotary = RotaryEmbedding2D(hidden_size // config.num_attention_heads, config.rope_theta)
        self.blocks = nn.ModuleList(DiTBlock(config) for _ in range(config.num_hidden_layers))
        self.scale_shift_table = nn.Parameter(torch.zeros(2, hidden_size))
        self.norm_out = nn.LayerNorm(hidden_size, elementwise_affine=False)
        self.proj_out = nn.Linear(hidden_size, config.in_channels * config.patch_size**2)

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Draw fresh weights as PixArt-alpha does; cross-attention adds nothing, and the answer is 0, until trained."""
        init_layers(self, generator)
        self.condition_tokens.init_weights(generator)
        self.null_token.normal_(std=_EMBEDDING_STD, generator=generator)
        self.time_proj.weight.normal_(std=_EMBEDDING_STD, generator=generator)
        for table in (self.scale_shift_table, *(block.scale_shift_table for block in self._blocks())):
            table.normal_(std=self.config.hidden_size**-0.5, generator=generator)
        for block in self._blocks():
            zero_layer(block.cross_attention.o_proj)
        zero_layer(self.inpaint_embed.proj)
        zero_layer(self.proj_out)

    def forward(
        self,
        latents: Tensor,
        timestep: Tensor,
        text_states: Tensor,
        text_mask: Tensor | None,
        condition: Condition | None = None,
        step_size: Tensor | None = None,
    ) -> Tensor:
        """As `Backbone`; both sides of `latents` are multiples of the patch size, else ConfigError."""
        patch_size = self.config.patch_size
        check_latents(latents, self.config.in_channels, patch_size)
        x = self.patch_embed(latents)
        kept = kept_channels(condition)
        if kept is not None:
            x = x + self.inpaint_embed(kept)
        context = join(
            [
                without_position(self.null_token.to(x.dtype).expand(len(x), 1, -1)),
                self.text_proj(text_states, text_mask),
                *self.condition_tokens(condition, self.patch_embed, patch_size),
            ]
        )
        height, width = latents.shape[-2:]
        rotary = self.rotary(grid_positions(height // patch_size, width // patch_size, x.device), x.dtype)
        context_rotary = self.rotary(context.positions, x.dtype)
        bias = key_bias(context)
        time = self.time_embed(timestep)
        step_size = resolve_step_size(step_size, timestep, self.config.step_size_embeds)
        if self.step_size_embed is not None and step_size is not None:
            time = time + self.step_size_embed(step_size)
        modulation = self.time_proj(nn.functional.silu(time)).unflatten(-1, (6, -1))
        for block in self.blocks:
            x = block(x, modulation, context.states, rotary, context_rotary, bias)
        shift, scale = (time[:, None] + self.scale_shift_table).unsqueeze(2).unbind(1)
        return unpatchify(self.proj_out(self.norm_out(x) * (1 + scale) + shift), patch_size, height, width)

    def _blocks(self) -> list[DiTBlock]:
        return [block for block in self.blocks if isinstance(block, DiTBlock)]
