"""Colours for models that know them by words and by what they start from alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from kilonova.data.world.colours import COLOURS, lab, named_colour

Rgb = tuple[int, int, int]

# Patches of colour along the shorter side of a picture to start from.
_PATCHES = 5
# How far the pixels of a reference move to the nearest colour.
_RECOLOURED = 0.7


def colour_words(colors: Sequence[Rgb]) -> str:
    """The nearest common names of `colors`, each once, in order."""
    names = list(COLOURS)
    found = [names[index] for index in named_colour(np.array(colors))]
    return ", ".join(dict.fromkeys(found))


def patches_of(colors: Sequence[Rgb], width: int, height: int, rng: np.random.Generator) -> np.ndarray:
    """A picture uint8 `[height, width, 3]` of soft patches of all `colors`, where `rng` puts them."""
    scale = _PATCHES / min(width, height)
    columns, rows = max(round(width * scale), 1), max(round(height * scale), 1)
    order = np.resize(rng.permutation(len(colors)), rows * columns)
    grid = np.array(colors, np.uint8)[rng.permutation(order)].reshape(rows, columns, 3)
    return np.array(Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC))


def recoloured(picture: np.ndarray, colors: Sequence[Rgb]) -> np.ndarray:
    """`picture` uint8 `[height, width, 3]` with each pixel moved towards the one of `colors` nearest in CIELAB."""
    palette = np.array(colors, np.float64)
    pixels, places = lab(picture), lab(palette)
    distances = (places**2).sum(-1) - 2 * pixels @ places.T
    nearest = palette[distances.argmin(-1)]
    return np.rint(picture + _RECOLOURED * (nearest - picture)).astype(np.uint8)
