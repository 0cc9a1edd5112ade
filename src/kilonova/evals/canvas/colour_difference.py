"""How different colours look."""

from __future__ import annotations

import numpy as np


def colour_difference(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """CIEDE2000 (Sharma et al. 2005, doi:10.1002/col.20070) between sRGB colours uint8 `[..., 3]`, float64 `[...]`.

    About 1 is just visible. Leading dimensions are broadcast.
    """
    from skimage.color import deltaE_ciede2000, rgb2lab

    return deltaE_ciede2000(*np.broadcast_arrays(rgb2lab(first), rgb2lab(second)))


def to_palette(colours: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """CIEDE2000 from each of `colours` uint8 `[N, 3]` to the nearest of `palette` uint8 `[M, 3]`, float64 `[N]`."""
    return colour_difference(colours[:, None], palette[None]).min(axis=1)
