"""Pictures of regions, each of one colour: what a control of the type SEGMENTATION shows."""

from __future__ import annotations

import numpy as np

from kilonova.data.pictures.palette import dominant_colours, to_lab

# Colours of regions, the largest region first; they say nothing of what is there.
_COLOURS = np.array(
    [
        (38, 44, 84), (240, 196, 64), (72, 168, 176), (214, 88, 92), (140, 196, 92), (156, 96, 180), (236, 148, 80),
        (92, 132, 220), (236, 168, 196), (120, 92, 72), (196, 220, 232), (64, 112, 72),
    ],
    np.uint8,
)  # fmt: skip
_MAX_COLOURS = 8
# Regions of fewer of the pixels go to their neighbours.
_LEAST_SHARE = 0.003
_MEDIAN_SIZE = 3


def paint_regions(labels: np.ndarray) -> np.ndarray:
    """The picture uint8 `[H, W, 3]` of regions, given as whole numbers `[H, W]`.

    Colours go by size, so that they do not depend on what the numbers mean; after twelve they begin anew.
    """
    values, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    rank = np.empty(len(values), np.int64)
    rank[np.argsort(-counts, kind="stable")] = np.arange(len(values))
    return _COLOURS[rank[inverse].reshape(labels.shape) % len(_COLOURS)]


def flat_regions(picture: np.ndarray) -> np.ndarray:
    """Regions of `picture` uint8 `[H, W, 3]` whose segmentation is not known, in the form of `paint_regions`.

    They are its connected parts of one of at most eight dominant colours, small ones given to their neighbours.
    """
    return paint_regions(region_labels(picture))


def region_labels(picture: np.ndarray) -> np.ndarray:
    """The numbers int64 `[H, W]` of the regions that `flat_regions` paints."""
    from scipy import ndimage

    height, width = picture.shape[:2]
    centres = to_lab(dominant_colours(picture[..., :3], _MAX_COLOURS))
    pixels = to_lab(picture[..., :3].reshape(-1, 3))
    distances = (pixels**2).sum(1)[:, None] - 2 * pixels @ centres.T + (centres**2).sum(1)
    nearest = ndimage.median_filter(distances.argmin(1).reshape(height, width).astype(np.uint8), _MEDIAN_SIZE)
    labels = np.zeros((height, width), np.int64)
    for colour in range(len(centres)):
        parts, _ = ndimage.label(nearest == colour)
        labels[parts > 0] = parts[parts > 0] + labels.max()
    counts = np.bincount(labels.ravel())
    small = counts[labels] < max(4, _LEAST_SHARE * labels.size)
    if small.all():
        return np.zeros_like(labels)
    rows, columns = ndimage.distance_transform_edt(small, return_distances=False, return_indices=True)
    return labels[rows, columns]
