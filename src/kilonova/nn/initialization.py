"""Fresh weights for networks of linear layers and convolutions."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def init_layers(model: nn.Module, generator: torch.Generator | None = None) -> None:
    """Draw Xavier-normal weights for every linear layer and convolution, with biases of 0; leave all else alone."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.xavier_normal_(module.weight, generator=generator)
            if module.bias is not None:
                module.bias.zero_()


@torch.no_grad()
def zero_layer(layer: nn.Linear | nn.Conv2d) -> None:
    """Make a layer answer with zeros until it is trained."""
    layer.weight.zero_()
    if layer.bias is not None:
        layer.bias.zero_()
