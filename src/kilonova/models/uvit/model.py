"""The U-ViT network (arXiv 2209.12152; at scale, arXiv 2412.12391)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kilonova.models.backbone import check_latents, resolve_step_size
from kilonova.models.condition import Condition
from kilonova.models.condition_tokens import (
    ConditionTokens,
    TextProjection,
    Tokens,
    join,
    kept_channels,
    key_bias,
    without_position,
)
from kilonova.models.uvit.config import UViTConfig
from kilonova.nn.initialization import init_layers, zero_layer
from kilonova.nn.joint_attention import JointAttention, Rotary
from kilonova.nn.patches import PatchEmbedding, unpatchify
from kilonova.nn.rotary_2d import RotaryEmbedding2D, grid_positions
from kilonova.nn.timestep import TimestepEmbedding


class UViTBlock(nn.Module):
    """Pre-norm attention and feed-forward; with `skip`, first a linear layer of the stream beside an earlier one."""

    def __init__(self, config: UViTConfig, *, skip: bool) -> None:
        super().__init__()
        hidden_size = config.hidden_size
        self.skip_proj = nn.Linear(2 * hidden_size, hidden_size) if skip else None
        self.norm1 = nn.LayerNorm(hidden_size)
        self.attention = JointAttention(hidden_size, config.num_attention_heads)
        self.norm2 = nn.LayerNorm(hidden_size)
        self.fc1 = nn.Linear(hidden_size, config.mlp_ratio * hidden_size)
        self.fc2 = nn.Linear(config.mlp_ratio * hidden_size, hidden_size)

    def forward(self, x: Tensor, skip: Tensor | None, rotary: Rotary, bias: Tensor | None) -> Tensor:
        if self.skip_proj is not None and skip is not None:
            x = self.skip_proj(torch.cat((x, skip), dim=-1))
        x = x + self.attention(self.norm1(x), rotary, bias)
        return x + self.fc2(nn.functional.gelu(self.fc1(self.norm2(x))))


class UViT(nn.Module):
    """A backbone that attends among all of [time, step size, text, palette, references, control, picture] at once.

    The picture's tokens come last. Weights are of no use until `init_weights` draws them or a checkpoint fills them.
    """

    def __init__(self, config: UViTConfig) -> None:
        super().__init__()
        self.config = config
        hidden_size = config.hidden_size
        self.patch_embed = PatchEmbedding(config.in_channels, config.patch_size, hidden_size)
        self.inpaint_embed = PatchEmbedding(config.in_channels + 1, config.patch_size, hidden_size, bias=False)
        self.time_embed = TimestepEmbedding(hidden_size, hidden_size)
        self.step_size_embed = TimestepEmbedding(hidden_size, hidden_size) if config.step_size_embeds else None
        self.text_proj = TextProjection(config.text_hidden_size, hidden_size)
        self.condition_tokens = ConditionTokens(hidden_size)
        self.rotary = RotaryEmbedding2D(hidden_size // config.num_attention_heads, config.rope_theta)
        half = config.num_hidden_layers // 2
        self.in_blocks = nn.ModuleList(UViTBlock(config, skip=False) for _ in range(half))
        self.mid_block = UViTBlock(config, skip=False)
        self.out_blocks = nn.ModuleList(UViTBlock(config, skip=True) for _ in range(half))
        self.norm_out = nn.LayerNorm(hidden_size)
        self.proj_out = nn.Linear(hidden_size, config.in_channels * config.patch_size**2)

    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Draw fresh weights; the answer is 0 until they are trained."""
        init_layers(self, generator)
        self.condition_tokens.init_weights(generator)
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
        check_latents(latents, self.config.in_channels, self.config.patch_size)
        tokens = self._tokens(latents, timestep, text_states, text_mask, condition, step_size)
        rotary = self.rotary(tokens.positions, tokens.states.dtype)
        bias = key_bias(tokens)
        x = tokens.states
        skips = []
        for block in self.in_blocks:
            x = block(x, None, rotary, bias)
            skips.append(x)
        x = self.mid_block(x, None, rotary, bias)
        for block in self.out_blocks:
            x = block(x, skips.pop(), rotary, bias)
        height, width = latents.shape[-2:]
        pictures = x[:, -height * width // self.config.patch_size**2 :]
        return unpatchify(self.proj_out(self.norm_out(pictures)), self.config.patch_size, height, width)

    def _tokens(
        self,
        latents: Tensor,
        timestep: Tensor,
        text_states: Tensor,
        text_mask: Tensor | None,
        condition: Condition | None,
        step_size: Tensor | None,
    ) -> Tokens:
        times = [self.time_embed(timestep)]
        step_size = resolve_step_size(step_size, timestep, self.config.step_size_embeds)
        if self.step_size_embed is not None and step_size is not None:
            times.append(self.step_size_embed(step_size))
        states = self.patch_embed(latents)
        kept = kept_channels(condition)
        if kept is not None:
            states = states + self.inpaint_embed(kept)
        patch_size = self.config.patch_size
        height, width = latents.shape[-2] // patch_size, latents.shape[-1] // patch_size
        return join(
            [
                without_position(torch.stack(times, dim=1)),
                self.text_proj(text_states, text_mask),
                *self.condition_tokens(condition, self.patch_embed, patch_size),
                Tokens(states, grid_positions(height, width, states.device)),
            ]
        )
