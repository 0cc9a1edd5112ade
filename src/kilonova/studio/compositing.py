"""Bringing what was drawn into a picture; what a mask leaves out stays as it is, bit by bit."""

from __future__ import annotations

import numpy as np

# Of the shorter side of the mask's box: how far into the mask the old picture fades, and the most pixels for it.
_FEATHER = 0.03
_MAX_FEATHER = 6.0
# Colours of eight bits that differ by more are those of different things.
_LARGEST_DIFFERENCE = 48.0


def feather(mask: np.ndarray, width: float) -> np.ndarray:
    """Opacities float32 `[H, W]` in [0, 1]: 0 outside `mask` bool `[H, W]`, rising to 1 within `width` pixels inside.

    The picture's own border is no border of the mask.
    """
    from scipy import ndimage

    if mask.all():
        return np.ones(mask.shape, np.float32)
    distance = ndimage.distance_transform_edt(mask).astype(np.float32)
    return _smooth((distance - 0.5) / max(width, 1.0)) * mask


def feather_outwards(mask: np.ndarray, width: float) -> np.ndarray:
    """Opacities float32 `[H, W]`: 1 in `mask` bool `[H, W]`, falling to 0 within `width` pixels outside of it."""
    return 1 - feather(~mask, width) if mask.any() else np.zeros(mask.shape, np.float32)


def feather_width(mask: np.ndarray) -> float:
    """How far a mask bool `[H, W]` is softened at its border: 3 percent of its box's shorter side, 1 to 6 pixels."""
    rows, columns = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
    if not len(rows):
        return 1.0
    return float(np.clip(_FEATHER * min(np.ptp(rows) + 1, np.ptp(columns) + 1), 1, _MAX_FEATHER))


def composite(source: np.ndarray, drawn: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    """`drawn` over `source`, both uint8 `[H, W, C]`, by `opacity` float32 `[H, W]`; where it is 0 nothing changes."""
    result = source.copy()
    touched = opacity > 0
    share = opacity[touched][:, None]
    mixed = drawn[touched] * share + source[touched] * (1 - share)
    result[touched] = np.rint(mixed).astype(np.uint8)
    return result


def match_border(source: np.ndarray, drawn: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """`drawn` with its colours carried over smoothly, so that it meets `source` at the border of `mask`.

    Inside the mask the solution of Laplace's equation is added whose values along its border are the differences of the
    two, which is Poisson image editing (Pérez et al. 2003, section 2). Large differences, which are those of things and
    not of tones, count less, and from 48 on not at all (Tukey's biweight). Outside the mask it is `source`. Pictures
    are uint8 `[H, W, 3]`, `mask` is bool `[H, W]`; it is meant for native sizes, as a linear system of the mask's
    pixels is solved.
    """
    from scipy import sparse
    from scipy.sparse.linalg import factorized

    height, width = mask.shape
    count = int(mask.sum())
    if not count or mask.all():
        return drawn.copy()
    number = np.full((height, width), -1)
    number[mask] = np.arange(count)
    difference = source.astype(np.float64) - drawn
    largest = np.abs(difference).max(axis=-1, keepdims=True) / _LARGEST_DIFFERENCE
    difference *= (1 - largest.clip(max=1) ** 2) ** 2
    degree, known = np.zeros(count), np.zeros((count, source.shape[-1]))
    rows, columns = [], []
    for shift in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        here, there = _neighbours(number, shift), _neighbours(number, (-shift[0], -shift[1]))
        value = difference[_window((height, width), (-shift[0], -shift[1]))]
        inner, outer = (here >= 0) & (there >= 0), (here >= 0) & (there < 0)
        degree += np.bincount(here[here >= 0], minlength=count)
        known[here[outer]] += value[outer]
        rows.append(here[inner])
        columns.append(there[inner])
    pairs = (np.concatenate(rows), np.concatenate(columns))
    laplacian = sparse.diags(degree) - sparse.coo_matrix((np.ones(len(pairs[0])), pairs), (count, count))
    solve = factorized(laplacian.tocsc())
    added = np.stack([solve(known[:, channel]) for channel in range(known.shape[1])], axis=-1)
    result = source.copy()
    result[mask] = np.rint((drawn[mask] + added).clip(0, 255)).astype(np.uint8)
    return result


def _smooth(share: np.ndarray) -> np.ndarray:
    share = share.clip(0, 1)
    return share * share * (3 - 2 * share)


def _window(shape: tuple[int, int], shift: tuple[int, int]) -> tuple[slice, slice]:
    """The pixels that have a neighbour `shift` rows and columns on."""
    rows, columns = (slice(max(-step, 0), length - max(step, 0)) for step, length in zip(shift, shape, strict=True))
    return rows, columns


def _neighbours(number: np.ndarray, shift: tuple[int, int]) -> np.ndarray:
    return number[_window(number.shape, shift)]
