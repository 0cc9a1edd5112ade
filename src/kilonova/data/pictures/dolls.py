"""Paper dolls as pictures with words, and as examples of putting on a garment."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from kilonova.core.errors import ConfigError
from kilonova.data.pictures.masks import bounding_box, grown
from kilonova.data.world.chance import pick
from kilonova.data.world.dolls import RenderedDoll, render_doll, render_garment
from kilonova.data.world.dolls_garments import GARMENTS, Garment
from kilonova.data.world.dolls_sampling import Doll, doll_caption, garment_caption, sample_doll, sample_garment

# Of the pictures, the share that shows a garment without a person.
_PRODUCT_SHARE = 0.12
_LEAST_SEEN = 0.004


@dataclass(frozen=True, kw_only=True)
class DollSource:
    """`dolls` paper dolls drawn by `seed`; pictures are drawn from the sources in proportion to `weight` times that."""

    name: str = "dolls"
    seed: int = 0
    dolls: int = 100_000
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.weight <= 0:
            raise ConfigError(f"source {self.name!r}: weight must be above 0")
        if self.dolls < 1:
            raise ConfigError(f"source {self.name!r}: dolls must be at least 1")


@dataclass(frozen=True, eq=False)
class TryOn:
    """A person who wears a garment: `picture` and the `garment` alone, uint8 `[H, W, 4]`, and the part of the picture
    that changes with what is worn there, `mask` bool `[H, W]`."""

    picture: np.ndarray
    garment: np.ndarray
    mask: np.ndarray
    worn: Garment


class DollPictures:
    """The pictures of a `DollSource`, drawn at whatever size is asked for."""

    def __init__(self, source: DollSource) -> None:
        self.source = source

    def __len__(self) -> int:
        return self.source.dolls

    def doll(self, index: int) -> Doll:
        """The doll, the same for every call."""
        return sample_doll((self.source.seed, index))

    def whole(self, index: int, width: int, height: int, generator: np.random.Generator) -> tuple[np.ndarray, str]:
        """The doll, uint8 RGBA `[height, width, 4]`, or now and then one of its garments alone, and a caption."""
        doll = self.doll(index)
        if generator.random() < _PRODUCT_SHARE:
            garment = pick(generator, doll.garments)
            return render_garment(garment, (width, height)), garment_caption(garment, generator)
        return render_doll(doll, (width, height)).image, doll_caption(doll, generator)

    view = whole

    def rendered(self, index: int, width: int, height: int) -> RenderedDoll:
        """The doll with its masks."""
        return render_doll(self.doll(index), (width, height))

    def try_on(self, index: int, width: int, height: int, generator: np.random.Generator) -> TryOn:
        """One of the doll's garments that can be seen, and the doll as it wears it.

        The mask holds where the garment is and, mostly, where another of its slot would be, so that it does not give
        its shape away; it is tight, loose or a box, and may spare the face and the hands.
        """
        doll = self.doll(index)
        drawn = render_doll(doll, (width, height))
        seen = [garment for garment in doll.garments if drawn.parts[GARMENTS[garment.kind].slot].mean() >= _LEAST_SEEN]
        garment = pick(generator, seen or doll.garments)
        slot = GARMENTS[garment.kind].slot
        mask = drawn.parts[slot]
        if generator.random() < 0.7:
            other = sample_garment(generator, slot)
            swapped = replace(doll, garments=tuple(other if one is garment else one for one in doll.garments))
            mask = mask | render_doll(swapped, (width, height)).parts[slot]
        mask = grown(mask, generator.uniform(0.01, 0.06))
        if generator.random() < 0.25:
            mask = bounding_box(mask)
        if generator.random() < 0.6:
            mask = mask & ~drawn.parts["face"] & ~drawn.parts["hands"]
        return TryOn(drawn.image, render_garment(garment, (width, height)), mask, garment)
