"""The colours that stand for a picture."""

from __future__ import annotations

import numpy as np

from kilonova.data.world.colours import lab

# A bin of the first count is this wide in each channel.
_BIN = 16
# Colours nearer than this in CIELAB count as one.
_APART = 12.0
# Colours of fewer of the visible pixels are those of antialiased borders.
_LEAST_SHARE = 0.005


def dominant_colours(picture: np.ndarray, count: int) -> np.ndarray:
    """At most `count` colours of `picture` uint8 `[H, W, 3 or 4]`, the commonest first: uint8 `[count', 3]`.

    Pixels of alpha under 128 do not count; nothing to see gives no colours. No two are within 12 of each other in
    CIELAB, and each but the first stands for at least 0.5 percent of the pixels.
    """
    pixels = picture.reshape(-1, picture.shape[-1])
    if picture.shape[-1] == 4:
        pixels = pixels[pixels[:, 3] >= 128, :3]
    bins = (pixels // _BIN).astype(np.int32) @ np.array([256, 16, 1], np.int32)
    _, inverse, counts = np.unique(bins, return_inverse=True, return_counts=True)
    sums = np.stack([np.bincount(inverse, pixels[:, channel], len(counts)) for channel in range(3)], axis=1)
    colours = sums / np.maximum(counts, 1)[:, None]
    places, left = lab(colours), counts.astype(np.float64)
    found: list[np.ndarray] = []
    while len(found) < count and len(left) and left.max() > (_LEAST_SHARE * len(pixels) if found else 0):
        best = int(left.argmax())
        near = (np.linalg.norm(places - places[best], axis=1) < _APART) & (left > 0)
        found.append(colours[best])
        left[near] = 0
    return np.rint(np.array(found).reshape(-1, 3)).astype(np.uint8)


def to_lab(colours: np.ndarray) -> np.ndarray:
    """CIELAB (D65) of sRGB `colours` uint8 `[N, 3]`, float32 of the same shape."""
    return lab(colours).astype(np.float32)
