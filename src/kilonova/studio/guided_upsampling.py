"""Small maps of a picture brought to its full size along its edges."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

# Rec. 709.
_LUMA = (0.2126, 0.7152, 0.0722)
_RADIUS = 2
# Of luma's variance in [0, 1]: where it varies less, edges are not to be trusted.
_EPSILON = 1e-3


def luma(picture: np.ndarray) -> np.ndarray:
    """The luma of an RGB picture uint8 `[H, W, 3]`, float32 `[H, W]` in [0, 1]."""
    return (picture.astype(np.float32) @ np.array(_LUMA, np.float32)) / 255


def guided_upsampling(values: np.ndarray, small_guide: np.ndarray, guide: np.ndarray) -> np.ndarray:
    """`values` float32 `[h, w]` in [0, 1] at the size of `guide` `[H, W]`, whose reduction `small_guide` is `[h, w]`.

    It is a bilinear resampling of the values to which the detail that `guide` has beyond `small_guide` is added, in
    the proportion in which both varied together in windows of 5 by 5, as in the fast guided filter (arXiv 1505.00996).
    So it is exact wherever the values are linear in the guide, a plain resampling where the guide is flat, and changes
    nothing if the sizes are equal.
    """
    small, p = _plane(small_guide), _plane(values)
    mean_guide, mean_values = _mean(small), _mean(p)
    covariance = _mean(small * p) - mean_guide * mean_values
    slope = _mean(covariance / ((_mean(small * small) - mean_guide**2).clamp(min=0) + _EPSILON))
    size = guide.shape
    resampled = interpolate(torch.cat((p, slope, small)), size, mode="bilinear", align_corners=False)[:, 0]
    detail = torch.from_numpy(np.ascontiguousarray(guide)) - resampled[2]
    return (resampled[0] + resampled[1] * detail).clamp(0, 1).numpy()


def _plane(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, np.float32))[None, None]


def _mean(x: Tensor) -> Tensor:
    return avg_pool2d(x, 2 * _RADIUS + 1, stride=1, padding=_RADIUS, count_include_pad=False)
