"""Pictures, and things cut out of them, as the attribute classifier takes them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from kilonova.data.pictures.placement import over_colour, place

_MARGIN = 0.08


def to_tensor(pictures: Sequence[np.ndarray], image_size: int) -> Tensor:
    """Pictures uint8 `[H, W, 3 or 4]` of any sizes, whole and in the middle of a white square: float32 in [-1, 1],
    `[B, 3, image_size, image_size]`."""
    squares = []
    for picture in pictures:
        placed = place(Image.fromarray(picture).convert("RGBA"), image_size, image_size)
        squares.append(over_colour(placed, (255, 255, 255))[..., :3])
    return torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2).float() / 127.5 - 1


def cut_out(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """What a mask, bool `[H, W]` and not empty, shows of a picture uint8 `[H, W, 3 or 4]`: RGBA, square, with a little
    room around it, transparent outside of the mask."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    side = int(np.ceil(max(bottom - top, right - left) * (1 + 2 * _MARGIN)))
    result = np.zeros((side, side, 4), np.uint8)
    y, x = (side - (bottom - top)) // 2, (side - (right - left)) // 2
    patch = result[y : y + bottom - top, x : x + right - left]
    patch[..., :3] = picture[top:bottom, left:right, :3]
    patch[..., 3] = mask[top:bottom, left:right] * np.uint8(255)
    return result
