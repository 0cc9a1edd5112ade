"""The attribute classifier: a small residual convolutional network with one linear head an attribute."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kilonova.models.classifier.config import AttributeClassifierConfig
from kilonova.nn.convolution import ResidualBlock, ResidualDownsample, group_norm
from kilonova.nn.initialization import init_layers, zero_layer

_STEM_FACTOR = 2


class AttributeClassifier(nn.Module):
    """Opaque pictures in [-1, 1] to features, and features to logits of every attribute.

    Weights are of no use until `init_weights` draws them or a checkpoint fills them.
    """

    def __init__(self, config: AttributeClassifierConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.block_out_channels
        self.conv_in = nn.Conv2d(3 * _STEM_FACTOR**2, widths[0], 3, padding=1)
        levels: list[nn.Module] = []
        for level, width in enumerate(widths):
            if level:
                levels.append(ResidualDownsample(widths[level - 1], width))
            levels.extend(ResidualBlock(width, width, config.norm_num_groups) for _ in range(config.layers_per_block))
        self.levels = nn.Sequential(*levels)
        self.norm_out = group_norm(config.norm_num_groups, widths[-1])
        self.heads = nn.ModuleDict({name: nn.Linear(widths[-1], len(values)) for name, values in config.heads.items()})

    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Draw fresh weights; residual blocks add nothing and all values are equally likely until trained."""
        init_layers(self, generator)
        for module in self.modules():
            if isinstance(module, ResidualBlock):
                zero_layer(module.conv2)
        for head in self.heads.values():
            if isinstance(head, nn.Linear):
                zero_layer(head)

    def features(self, pictures: Tensor) -> Tensor:
        """What is seen in `pictures` `[B, 3, S, S]`, `S` the `image_size`: `[B, block_out_channels[-1]]`."""
        x = self.levels(self.conv_in(nn.functional.pixel_unshuffle(pictures, _STEM_FACTOR)))
        return nn.functional.silu(self.norm_out(x)).mean((2, 3))

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        """The logits `[B, values]` of each attribute of `pictures` `[B, 3, S, S]`."""
        features = self.features(pictures)
        return {name: head(features) for name, head in self.heads.items()}
