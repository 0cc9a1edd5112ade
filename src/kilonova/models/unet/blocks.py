"""The parts of a UNet of the SDXL type (arXiv 2307.01952; blocks of arXiv 2112.10752, appendix E.2.1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kilonova.nn.convolution import ResidualBlock
from kilonova.nn.joint_attention import CrossAttention, JointAttention


class GEGLU(nn.Module):
    """Feed-forward layer `down(up(x) * gelu(gate(x)))`, four times as wide inside (arXiv 2002.05202)."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.up_gate_proj = nn.Linear(hidden_size, 8 * hidden_size)
        self.down_proj = nn.Linear(4 * hidden_size, hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        up, gate = self.up_gate_proj(x).chunk(2, dim=-1)
        return self.down_proj(up * nn.functional.gelu(gate))


class TransformerBlock(nn.Module):
    """Pre-norm self-attention, cross-attention and feed-forward, each with a residual connection."""

    def __init__(self, hidden_size: int, context_size: int, num_attention_heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(hidden_size)
        self.self_attention = JointAttention(hidden_size, num_attention_heads, qk_norm=False)
        self.norm2 = nn.LayerNorm(hidden_size)
        self.cross_attention = CrossAttention(hidden_size, context_size, num_attention_heads, qk_norm=False)
        self.norm3 = nn.LayerNorm(hidden_size)
        self.feed_forward = GEGLU(hidden_size)

    def forward(self, x: Tensor, context: Tensor, bias: Tensor | None) -> Tensor:
        x = x + self.self_attention(self.norm1(x))
        x = x + self.cross_attention(self.norm2(x), context, key_bias=bias)
        return x + self.feed_forward(self.norm3(x))


class SpatialTransformer(nn.Module):
    """Transformer blocks over the positions of a feature map, between two linear layers, around an identity."""

    def __init__(
        self, channels: int, depth: int, context_size: int, attention_head_dim: int, norm_num_groups: int
    ) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(norm_num_groups, channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, channels)
        self.blocks = nn.ModuleList(
            TransformerBlock(channels, context_size, channels // attention_head_dim) for _ in range(depth)
        )
        self.proj_out = nn.Linear(channels, channels)

    def forward(self, x: Tensor, context: Tensor, bias: Tensor | None) -> Tensor:
        """`[B, C, h, w]` of `x` of that shape, `context` `[B, S, context]` and the `key_bias` of its tokens."""
        tokens = self.proj_in(self.norm(x).flatten(2).transpose(1, 2))
        for block in self.blocks:
            tokens = block(tokens, context, bias)
        return x + self.proj_out(tokens).transpose(1, 2).unflatten(2, x.shape[2:])


class UNetLayer(nn.Module):
    """A residual block, and a spatial transformer if `depth` is not 0."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        depth: int,
        *,
        time_size: int,
        context_size: int,
        attention_head_dim: int,
        norm_num_groups: int,
    ) -> None:
        super().__init__()
        self.residual = ResidualBlock(in_channels, out_channels, norm_num_groups, time_size)
        self.transformer = (
            SpatialTransformer(out_channels, depth, context_size, attention_head_dim, norm_num_groups)
            if depth
            else None
        )

    def forward(self, x: Tensor, time: Tensor, context: Tensor, bias: Tensor | None) -> Tensor:
        x = self.residual(x, time)
        return x if self.transformer is None else self.transformer(x, context, bias)


class DownLevel(nn.Module):
    """The layers at one resolution, then the convolution that halves it; None at the coarsest."""

    def __init__(self, layers: list[UNetLayer], downsample: nn.Conv2d | None) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.downsample = downsample

    def forward(self, x: Tensor, skips: list[Tensor], time: Tensor, context: Tensor, bias: Tensor | None) -> Tensor:
        """What the next level takes; every intermediate result is added to `skips`."""
        for layer in self.layers:
            x = layer(x, time, context, bias)
            skips.append(x)
        if self.downsample is not None:
            x = self.downsample(x)
            skips.append(x)
        return x


class UpLevel(nn.Module):
    """The layers at one resolution, each beside a skip, then doubling and a convolution; None at the finest."""

    def __init__(self, layers: list[UNetLayer], upsample: nn.Conv2d | None) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.upsample = upsample

    def forward(self, x: Tensor, skips: list[Tensor], time: Tensor, context: Tensor, bias: Tensor | None) -> Tensor:
        """What the next level takes, of the size of the skip that waits for it; those used here leave `skips`."""
        for layer in self.layers:
            x = layer(torch.cat((x, skips.pop()), dim=1), time, context, bias)
        if self.upsample is not None:
            x = self.upsample(nn.functional.interpolate(x, size=skips[-1].shape[-2:], mode="nearest"))
        return x
