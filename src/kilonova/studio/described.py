"""Masks that are given in words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kilonova.core.errors import InvalidRequest
from kilonova.data.pictures.masks import bounding_box, grown
from kilonova.studio.segmentation import Segmenter

_THRESHOLD = 0.5
# What lies so near a thing is made anew with it: a share of the picture's shorter side, or less for a small thing.
_MARGIN = 0.04
_MARGIN_OF_THING = 0.12


def require_segmenter(segmenter: Segmenter | None) -> Segmenter:
    """InvalidRequest if the model has none."""
    if segmenter is None:
        raise InvalidRequest("this model has no segmenter, which would find what the request describes; give a mask")
    return segmenter


def seen(segmenter: Segmenter, picture: np.ndarray, phrase: str) -> np.ndarray:
    """Where `picture` uint8 `[H, W, 3]` shows what `phrase` says: bool `[H, W]`."""
    return segmenter.refer(picture, phrase) > _THRESHOLD


def find(segmenter: Segmenter | None, picture: np.ndarray, phrases: Sequence[str]) -> np.ndarray:
    """Where `picture` uint8 `[H, W, 3]` shows any of `phrases`: bool `[H, W]`; InvalidRequest if nowhere."""
    segmenter = require_segmenter(segmenter)
    found = np.zeros(picture.shape[:2], bool)
    for phrase in phrases:
        found |= seen(segmenter, picture, phrase)
    if not found.any():
        raise InvalidRequest(f"nothing in the picture was found for {' or '.join(map(repr, phrases))}", field="mask")
    return found


def loosened(mask: np.ndarray) -> np.ndarray:
    """`mask` bool `[H, W]` and a margin: 4 percent of the picture's shorter side, at most 12 of the thing's size."""
    size = float(mask.sum()) ** 0.5 / min(mask.shape)
    return grown(mask, min(_MARGIN, _MARGIN_OF_THING * size))


def boxed(mask: np.ndarray) -> np.ndarray:
    """The rectangle around `mask` bool `[H, W]` and its margin."""
    return bounding_box(loosened(mask))
