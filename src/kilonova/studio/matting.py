"""Cutting what stands in front out of a picture."""

from __future__ import annotations

import numpy as np

# Of the shorter side, one after the other: how far around a pixel colours are looked for.
_RADII = (0.2, 0.1, 0.02)


def cut_out(picture: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """`picture` uint8 `[H, W, 3]` with `alpha` float32 `[H, W]` in [0, 1]: uint8 `[H, W, 4]`.

    Pixels that are partly background get the colour that the foreground must have there, so that nothing of the old
    background goes along (blur fusion, arXiv 2006.14970); all others keep theirs.
    """
    share = alpha.clip(0, 1)[..., None].astype(np.float32)
    front = behind = picture.astype(np.float32)
    partly = ((share > 0) & (share < 1))[..., 0]
    if partly.any():
        for radius in _RADII:
            front, behind = _refined(picture, share, front, behind, max(1, round(radius * min(share.shape[:2]))))
    colours = picture.copy()
    colours[partly] = np.rint(front[partly].clip(0, 255)).astype(np.uint8)
    return np.concatenate((colours, np.rint(share * 255).astype(np.uint8)), axis=-1)


def _refined(
    picture: np.ndarray, share: np.ndarray, front: np.ndarray, behind: np.ndarray, radius: int
) -> tuple[np.ndarray, np.ndarray]:
    """Foreground and background that blend to the picture, near the means of those around (equations 7 to 9)."""
    blurred = _blur(share, radius)
    front = _blur(front * share, radius) / (blurred + 1e-5)
    behind = _blur(behind * (1 - share), radius) / (1 - blurred + 1e-5)
    return (front + share * (picture - share * front - (1 - share) * behind)).clip(0, 255), behind


def _blur(values: np.ndarray, radius: int) -> np.ndarray:
    from scipy import ndimage

    size = 2 * radius + 1
    return ndimage.uniform_filter(values, (size, size, 0), mode="nearest")
