"""Counting backbones' parameters and operations, and finding rivals of equal size."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch.utils.flop_counter import FlopCounterMode

from kilonova.models.autoencoder.config import ImageAutoencoderConfig
from kilonova.models.autoencoder.model import ImageAutoencoder
from kilonova.models.component_config import ComponentConfig
from kilonova.models.components import build_component
from kilonova.models.dit.config import DiTConfig
from kilonova.models.unet.config import UNetConfig
from kilonova.models.uvit.config import UViTConfig

BackboneConfig = UViTConfig | DiTConfig | UNetConfig

# Channels of a UNet's finest level among which one of a given size is looked for.
_UNET_CHANNELS = range(8, 513, 4)
_TOLERANCE = 0.02


def num_parameters(config: ComponentConfig) -> int:
    """How many parameters the network of any component has; nothing is allocated."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build_component(config).parameters())


def forward_flops(config: BackboneConfig, height: int, width: int, num_text_tokens: int) -> int:
    """Floating-point operations, two a multiply-add, of one answer for one sample without conditions.

    `height` and `width` are the latents'. Matrix products, convolutions and attention count; a training step takes
    three times as many.
    """
    with torch.device("meta"):
        model = build_component(config).to("meta")
        latents = torch.empty(1, config.in_channels, height, width)
        states = torch.empty(1, num_text_tokens, config.text_hidden_size)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(latents, torch.empty(1), states, None)
    return counter.get_total_flops()


def autoencoder_flops(config: ImageAutoencoderConfig, height: int, width: int) -> tuple[int, int]:
    """Floating-point operations, two a multiply-add, of encoding and of decoding a `height` x `width` picture."""
    with torch.device("meta"):
        model = ImageAutoencoder(config)
        image = torch.empty(1, 4, height, width)
        with torch.no_grad(), FlopCounterMode(display=False) as encoding:
            latents = model.encode(image)
        with torch.no_grad(), FlopCounterMode(display=False) as decoding:
            model.decode_premultiplied(latents)
    return encoding.get_total_flops(), decoding.get_total_flops()


def match_dit(like: DiTConfig, measure: Callable[[DiTConfig], float], target: float) -> DiTConfig:
    """A network of about the proportions of `like` at which `measure` is within 2 % of `target`, or as near as can be.

    `measure` is `num_parameters`, or `forward_flops` at some size, or anything else that grows evenly with depth.
    Hidden sizes from two thirds to three halves of that of `like` are tried.
    """
    step = 4 * like.num_attention_heads
    proportion = like.hidden_size / like.num_hidden_layers
    found = []
    for hidden_size in range(step * math.ceil(like.hidden_size / 1.5 / step), int(1.5 * like.hidden_size) + 1, step):
        shallow = replace(like, hidden_size=hidden_size, num_hidden_layers=1)
        first = measure(shallow)
        each = measure(replace(shallow, num_hidden_layers=2)) - first
        depth = max(1 + round((target - first) / each), 1)
        error = abs(first + (depth - 1) * each - target) / target
        stretch = abs(math.log(hidden_size / depth / proportion))
        found.append((max(error, _TOLERANCE), stretch, replace(shallow, num_hidden_layers=depth)))
    return min(found, key=lambda entry: entry[:2])[2]


def match_unet(like: UNetConfig, measure: Callable[[UNetConfig], float], target: float) -> UNetConfig:
    """`like` scaled to the width at which `measure`, which grows with it, is closest to `target`."""
    candidates = [like.scaled(channels / like.block_out_channels[0]) for channels in _UNET_CHANNELS]
    low, high = 0, len(candidates) - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if measure(candidates[middle]) < target else (low, middle)
    return min(candidates[low], candidates[high], key=lambda config: abs(measure(config) - target))
