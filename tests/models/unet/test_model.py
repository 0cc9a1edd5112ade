from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import layer_norm

from kilonova.core.errors import ConfigError
from kilonova.models.components import build_component
from kilonova.models.sizing import num_parameters
from kilonova.models.unet.blocks import SpatialTransformer, TransformerBlock
from kilonova.models.unet.config import UNET_VARIANTS, UNetConfig
from kilonova.models.unet.model import UNet

CONFIG = UNetConfig(
    in_channels=4,
    block_out_channels=(8, 16),
    transformer_depth=(0, 1),
    attention_head_dim=8,
    norm_num_groups=4,
    text_hidden_size=12,
)
# Parameters of the published network, less those of its size and crop embedding: two linear layers.
SDXL = 2_567_463_684 - (2816 * 1280 + 1280) - (1280 * 1280 + 1280)
OWN = ("inpaint_conv", "text_norm", "null_token", "patch_embed", "condition_tokens")


def randomised(module):
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.data.normal_(generator=generator)
    return module.double()


def softmax_attention(query, key, value, layer):
    query, key, value = (part.unflatten(-1, (2, 8)) for part in (query, key, value))
    scores = torch.einsum("bqhd,bkhd->bhqk", query, key) / math.sqrt(8)
    attended = torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), value).flatten(2)
    return attended @ layer.o_proj.weight.T + layer.o_proj.bias


def transformer_formula(block, x, context):
    """Arxiv 2112.10752, appendix E.2.1: self-attention, cross-attention and a gated MLP, each after a norm."""
    normed = layer_norm(x, (16,), block.norm1.weight, block.norm1.bias)
    query, key, value = (normed @ block.self_attention.qkv_proj.weight.T).chunk(3, -1)
    x = x + softmax_attention(query, key, value, block.self_attention)
    normed = layer_norm(x, (16,), block.norm2.weight, block.norm2.bias)
    key, value = (context @ block.cross_attention.kv_proj.weight.T).chunk(2, -1)
    x = x + softmax_attention(normed @ block.cross_attention.q_proj.weight.T, key, value, block.cross_attention)
    normed = layer_norm(x, (16,), block.norm3.weight, block.norm3.bias)
    feed = block.feed_forward
    up, gate = (normed @ feed.up_gate_proj.weight.T + feed.up_gate_proj.bias).chunk(2, -1)
    inner = up * gate * (1 + torch.erf(gate / math.sqrt(2))) / 2
    return x + inner @ feed.down_proj.weight.T + feed.down_proj.bias


def test_a_transformer_block_is_its_formula():
    block = randomised(TransformerBlock(16, 12, 2))
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 6, 16, generator=generator, dtype=torch.float64)
    context = torch.randn(2, 5, 12, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(block(x, context, None), transformer_formula(block, x, context))


def test_a_spatial_transformer_works_on_positions_row_by_row():
    module = randomised(SpatialTransformer(16, 2, 12, 8, 4))
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 16, 2, 3, generator=generator, dtype=torch.float64)
    context = torch.randn(2, 5, 12, generator=generator, dtype=torch.float64)
    grouped = x.view(2, 4, -1)
    centred = grouped - grouped.mean(-1, keepdim=True)
    normed = (centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()).view(2, 16, 6)
    tokens = (normed * module.norm.weight[:, None] + module.norm.bias[:, None]).transpose(1, 2)
    tokens = tokens @ module.proj_in.weight.T + module.proj_in.bias
    for block in module.blocks:
        tokens = transformer_formula(block, tokens, context)
    residual = tokens @ module.proj_out.weight.T + module.proj_out.bias
    torch.testing.assert_close(module(x, context, None), x + residual.transpose(1, 2).reshape(x.shape))


@pytest.mark.parametrize(("height", "width"), [(6, 10), (2, 14), (16, 4)])
def test_any_even_size_goes_through(height, width):
    model = UNet(CONFIG)
    latents = torch.randn(1, 4, height, width)
    assert model(latents, torch.zeros(1), torch.randn(1, 3, 12), None).shape == latents.shape


def test_sdxls_shape_has_sdxls_parameters():
    config = replace(UNET_VARIANTS["sdxl"], in_channels=4, text_hidden_size=2048)
    with torch.device("meta"):
        model = build_component(config)
    own = sum(parameter.numel() for name, parameter in model.named_parameters() if name.split(".")[0] in OWN)
    assert sum(parameter.numel() for parameter in model.parameters()) - own == SDXL


def test_the_efficient_variant_is_45_percent_smaller():
    """Arxiv 2404.02883, abstract, of the whole network with SDXL's text encoders."""
    smaller = num_parameters(replace(UNET_VARIANTS["td4_4"], in_channels=4, text_hidden_size=2048))
    assert 0.43 < 1 - smaller / SDXL < 0.48


def test_scaling_keeps_depths_and_proportions():
    tenth = UNET_VARIANTS["td4_4"].scaled(0.1)
    assert tenth.block_out_channels == (32, 64, 128)
    assert tenth.transformer_depth == (0, 4, 4)
    assert tenth.attention_head_dim == 32
    assert UNET_VARIANTS["sdxl"].scaled(1.0) == UNET_VARIANTS["sdxl"]
    assert UNET_VARIANTS["sdxl"].scaled(0.15).attention_head_dim == 48


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"transformer_depth": (0, 1, 2)}, "transformer_depth: 3 levels"),
        ({"transformer_depth": (0, -1)}, "transformer_depth: -1"),
        ({"block_out_channels": (8, 18)}, "block_out_channels: .* not a multiple of 4"),
        ({"attention_head_dim": 5}, "attention_head_dim: 5 does not divide 16"),
    ],
)
def test_impossible_shapes_are_refused_by_field(changes, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        replace(CONFIG, **changes)
