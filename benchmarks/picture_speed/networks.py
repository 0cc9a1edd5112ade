"""Networks of random weights."""

from __future__ import annotations

import torch

from kilonova.models.uvit.config import UViTConfig
from kilonova.models.uvit.model import UViT


def random_uvit(config: UViTConfig, device: torch.device, dtype: torch.dtype) -> UViT:
    with torch.device(device):
        model = UViT(config)
    model.init_weights(torch.Generator(device).manual_seed(0))
    return model.to(dtype).eval()
