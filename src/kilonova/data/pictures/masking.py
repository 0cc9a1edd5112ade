"""What a model is shown of a picture of which a part is to be made anew."""

from __future__ import annotations

import numpy as np

_SPATIAL_FACTOR = 8


def hide(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """`picture` uint8 `[H, W, 4]` with what is to be made, `mask` bool `[H, W]`, transparent; in the same form.

    `Condition.masked_latents` are the latents of this.
    """
    return np.where(mask[..., None], np.uint8(0), picture)


def latent_mask(mask: np.ndarray) -> np.ndarray:
    """The share of each latent's 8 x 8 pixels that is to be made, float32 `[H / 8, W / 8]`: `Condition.mask`."""
    height, width = (side // _SPATIAL_FACTOR for side in mask.shape)
    return mask.reshape(height, _SPATIAL_FACTOR, width, _SPATIAL_FACTOR).mean((1, 3), dtype=np.float32)
