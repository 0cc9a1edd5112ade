"""The named colours of the rendered world, for things and for backgrounds, and how far apart two of them look."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

Rgb = tuple[int, int, int]

COLOURS: dict[str, Rgb] = {
    "red": (226, 54, 54),
    "orange": (245, 136, 34),
    "yellow": (250, 210, 50),
    "green": (62, 166, 78),
    "turquoise": (40, 192, 188),
    "blue": (50, 106, 220),
    "purple": (138, 76, 190),
    "pink": (250, 138, 180),
    "brown": (142, 90, 54),
    "black": (44, 44, 52),
    "white": (250, 250, 248),
    "gray": (146, 151, 160),
}
BACKGROUND_COLOURS: dict[str, Rgb] = {
    "white": (253, 253, 252),
    "light gray": (216, 219, 224),
    "light blue": (190, 222, 246),
    "light green": (200, 232, 196),
    "light yellow": (253, 242, 196),
    "light pink": (252, 214, 226),
    "light purple": (222, 208, 244),
    "dark blue": (38, 52, 98),
    "dark green": (34, 84, 66),
    "dark gray": (66, 70, 80),
}
# Each accent lists colours in order of preference: the first that stands out from the thing's own colour is used.
ACCENTS: dict[str, tuple[Rgb, ...]] = {
    "ink": ((42, 44, 56), (104, 108, 122)),
    "white": ((252, 252, 250), (206, 212, 222)),
    "wood": ((146, 98, 62), (92, 58, 38)),
    "waffle": ((222, 168, 104), (176, 116, 66)),
    "leaf": ((86, 172, 86), (34, 106, 72)),
    "glass": ((196, 230, 246), (122, 170, 208)),
    "sunny": ((255, 208, 84), (238, 128, 56)),
    "cream": ((250, 236, 208), (226, 196, 150)),
    "metal": ((164, 171, 184), (92, 98, 114)),
    "rose": ((255, 158, 166), (214, 84, 110)),
}
_DISTINCT = 24.0


def mix(colour: Rgb, other: Rgb, share: float) -> Rgb:
    """`colour` moved towards `other`; 0 leaves it, 1 gives `other`."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(colour, other, strict=True))
    return red, green, blue


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIELAB (D65) of sRGB values in 0 to 255, `[..., 3]` to float64 `[..., 3]`."""
    unit = np.asarray(rgb, np.float64) / 255
    linear = np.where(unit <= 0.04045, unit / 12.92, ((unit + 0.055) / 1.055) ** 2.4)
    matrix = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175],
                       [0.0193339, 0.119192, 0.9503041]])  # fmt: skip
    xyz = linear @ matrix.T / np.array([0.95047, 1.0, 1.08883])
    root = np.where(xyz > 216 / 24389, np.cbrt(xyz), (xyz * 24389 / 27 + 16) / 116)
    x, y, z = np.moveaxis(root, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


@lru_cache(maxsize=4096)
def distance(first: Rgb, second: Rgb) -> float:
    """CIE76 colour difference; about 2 is just visible, 25 is plainly another colour."""
    return float(np.linalg.norm(lab(np.array(first)) - lab(np.array(second))))


def named_colour(rgb: np.ndarray) -> np.ndarray:
    """Index into `COLOURS` of the name nearest in CIELAB to each sRGB value, `[..., 3]` to int64 `[...]`."""
    palette = lab(np.array(list(COLOURS.values())))
    return np.linalg.norm(lab(rgb)[..., None, :] - palette, axis=-1).argmin(-1)


def tint(name: str) -> Rgb:
    """The pale companion of a colour, as in its stripes; a grayish blue for white, which has no paler one."""
    return (168, 182, 206) if name == "white" else mix(COLOURS[name], (255, 255, 255), 0.66)


def shade(name: str) -> Rgb:
    """The dark companion of a colour, as in a roof above a wall; lighter for black, which has no darker one."""
    return (92, 94, 108) if name == "black" else mix(COLOURS[name], (30, 24, 60), 0.28)


def contour(name: str) -> Rgb:
    """The colour of an outlined thing's outline: nearly black, or pale where the thing itself is dark."""
    return (236, 238, 244) if name in ("black", "brown") else mix(COLOURS[name], (24, 22, 44), 0.82)


def accent(name: str, main: str) -> Rgb:
    """The colour of accent `name` on a thing whose own colour is `main`."""
    candidates = ACCENTS[name]
    return next((c for c in candidates if distance(c, COLOURS[main]) >= _DISTINCT), candidates[-1])
