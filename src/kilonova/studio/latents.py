"""Pictures of eight bits to latents and back."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from kilonova.models.autoencoder.model import ImageAutoencoder


def encode(autoencoder: ImageAutoencoder, pictures: np.ndarray) -> Tensor:
    """Latents `[B, C, H / 8, W / 8]` of `pictures` uint8 `[B, H, W, 3 or 4]`, opaque unless they have alpha."""
    if pictures.shape[-1] == 3:
        opaque = np.full((*pictures.shape[:-1], 1), 255, np.uint8)
        pictures = np.concatenate((pictures, opaque), axis=-1)
    weight = next(autoencoder.parameters())
    images = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).to(weight.device)
    return autoencoder.encode((images.float() / 127.5 - 1).to(weight.dtype)).float()


def decode_on_white(autoencoder: ImageAutoencoder, latents: Tensor) -> np.ndarray:
    """Pictures uint8 `[B, H, W, 3]` of `latents` `[B, C, h, w]`, in front of white."""
    weight = next(autoencoder.parameters())
    decoded = ((autoencoder.decode_premultiplied(latents.to(weight.dtype)).float() + 1) / 2).clamp(0, 1)
    colour, alpha = decoded[:, :3], decoded[:, 3:]
    shown = (torch.minimum(colour, alpha) + 1 - alpha) * 255
    return shown.nan_to_num(255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
