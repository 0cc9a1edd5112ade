"""Edges of a picture: what a control of the type CANNY_EDGE shows."""

from __future__ import annotations

import numpy as np

_LUMA = np.array([0.299, 0.587, 0.114])
# The blur, in pixels, that suits a picture whose shorter side is 128.
_SIGMA = 1.0
_MAX_SIGMA = 3.0
# Of the slope of an edge, which falls as the blur grows.
_THRESHOLDS = (0.06, 0.15)


def canny_edges(picture: np.ndarray) -> np.ndarray:
    """White lines on black, uint8 `[H, W, 3]`, where `picture` of the same form has edges.

    They are scikit-image's Canny edges of luma (ITU-R BT.601) after a blur that grows with the shorter side, one pixel
    wide; take them at the size at which a model draws, as lines fade when they are made smaller.
    """
    from skimage.feature import canny

    luma = picture[..., :3].astype(np.float64) @ _LUMA / 255
    sigma = min(_SIGMA * max(1.0, min(luma.shape) / 128), _MAX_SIGMA)
    low, high = (threshold / sigma for threshold in _THRESHOLDS)
    edges = canny(luma, sigma=sigma, low_threshold=low, high_threshold=high)
    return np.repeat(edges[..., None].astype(np.uint8) * 255, 3, axis=-1)
