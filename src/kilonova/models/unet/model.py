"""The UNet (arXiv 2307.01952, with the depths and widths of arXiv 2404.02883)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from kilonova.models.backbone import check_latents, resolve_step_size
from kilonova.models.condition import Condition
from kilonova.models.condition_tokens import (
    ConditionTokens,
    Tokens,
    join,
    kept_channels,
    key_bias,
    without_position,
)
from kilonova.models.unet.blocks import DownLevel, UNetLayer, UpLevel
from kilonova.models.unet.config import UNetConfig
from kilonova.nn.initialization import init_layers, zero_layer
from kilonova.nn.norm import RMSNorm
from kilonova.nn.patches import PatchEmbedding
from kilonova.nn.timestep import TimestepEmbedding, sinusoidal_embedding

_EMBEDDING_STD = 0.02
# Rows and columns of patches are in the tens.
_POSITION_PERIOD = 100.0


class UNet(nn.Module):
    """A backbone of convolutions with long skips, whose lower levels attend to text and conditions.

    One learned token is always among the latter, so that there is something to attend to without a text. Weights are
    of no use until `init_weights` draws them or a checkpoint fills them.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        channels, first = config.block_out_channels, config.block_out_channels[0]
        time_size = 4 * first
        self.conv_in = nn.Conv2d(config.in_channels, first, 3, padding=1)
        self.inpaint_conv = nn.Conv2d(config.in_channels + 1, first, 3, padding=1, bias=False)
        self.time_embed = TimestepEmbedding(first, time_size)
        self.step_size_embed = TimestepEmbedding(first, time_size) if config.step_size_embeds else None
        self.text_norm = RMSNorm(config.text_hidden_size)
        self.null_token = nn.Parameter(torch.zeros(config.text_hidden_size))
        self.patch_embed = PatchEmbedding(config.in_channels, config.patch_size, config.text_hidden_size)
        self.condition_tokens = ConditionTokens(config.text_hidden_size)

        def layer(in_channels: int, out_channels: int, depth: int) -> UNetLayer:
            return UNetLayer(
                in_channels,
                out_channels,
                depth,
                time_size=time_size,
                context_size=config.text_hidden_size,
                attention_head_dim=config.attention_head_dim,
                norm_num_groups=config.norm_num_groups,
            )

        levels = list(enumerate(zip(channels, config.transformer_depth, strict=True)))
        skips = [first]
        current = first
        down = []
        for index, (width, depth) in levels:
            layers = []
            for _ in range(config.layers_per_block):
                layers.append(layer(current, width, depth))
                current = width
                skips.append(current)
            last = index == len(levels) - 1
            down.append(DownLevel(layers, None if last else nn.Conv2d(current, current, 3, stride=2, padding=1)))
            if not last:
                skips.append(current)
        self.down_levels = nn.ModuleList(down)
        self.mid_in = layer(current, current, config.transformer_depth[-1])
        self.mid_out = layer(current, current, 0)
        up = []
        for index, (width, depth) in reversed(levels):
            layers = []
            for _ in range(config.layers_per_block + 1):
                layers.append(layer(current + skips.pop(), width, depth))
                current = width
            up.append(UpLevel(layers, nn.Conv2d(current, current, 3, padding=1) if index else None))
        self.up_levels = nn.ModuleList(up)
        self.norm_out = nn.GroupNorm(config.norm_num_groups, first)
        self.conv_out = nn.Conv2d(first, config.in_channels, 3, padding=1)

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Draw fresh weights; residual blocks add nothing, and the answer is 0, until they are trained."""
        init_layers(self, generator)
        self.condition_tokens.init_weights(generator)
        self.null_token.normal_(std=_EMBEDDING_STD, generator=generator)
        for module in self.modules():
            if isinstance(module, UNetLayer):
                zero_layer(module.residual.conv2)
                if module.transformer is not None:
                    zero_layer(module.transformer.proj_out)
        zero_layer(self.inpaint_conv)
        zero_layer(self.conv_out)

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
        x = self.conv_in(latents)
        kept = kept_channels(condition)
        if kept is not None:
            x = x + self.inpaint_conv(kept)
        time = self.time_embed(timestep)
        step_size = resolve_step_size(step_size, timestep, self.config.step_size_embeds)
        if self.step_size_embed is not None and step_size is not None:
            time = time + self.step_size_embed(step_size)
        tokens = self._context(text_states, text_mask, condition)
        context, bias = tokens.states, key_bias(tokens)
        skips = [x]
        for level in self.down_levels:
            x = level(x, skips, time, context, bias)
        x = self.mid_out(self.mid_in(x, time, context, bias), time, context, bias)
        for level in self.up_levels:
            x = level(x, skips, time, context, bias)
        return self.conv_out(nn.functional.silu(self.norm_out(x)))

    def _context(self, text_states: Tensor, text_mask: Tensor | None, condition: Condition | None) -> Tokens:
        null = self.null_token.to(text_states.dtype).expand(len(text_states), 1, -1)
        size = self.config.text_hidden_size // 2
        pictures = []
        for part in self.condition_tokens(condition, self.patch_embed, self.config.patch_size):
            places = sinusoidal_embedding(part.positions, size, _POSITION_PERIOD).flatten(1)
            pictures.append(replace(part, states=part.states + places.to(part.states.dtype)))
        text = without_position(self.text_norm(text_states), text_mask)
        return join([without_position(null), text, *pictures])
