"""Paper dolls as samples for a segmenter: garments by what they are called, and parts of the body."""

from __future__ import annotations

import numpy as np

from kilonova.data.pictures.dolls import DollSource
from kilonova.data.pictures.segments import Form, SegmentSample, asked
from kilonova.data.world.chance import pick, shuffled, whole
from kilonova.data.world.colours import COLOURS
from kilonova.data.world.dolls import render_doll
from kilonova.data.world.dolls_garments import GARMENTS, Garment
from kilonova.data.world.dolls_sampling import sample_doll

# What garments of a class are called beside the name of their kind.
_GARMENT_WORDS: dict[str, tuple[str, ...]] = {
    "LONG_SLEEVE_SHIRT": ("shirt", "top"),
    "SHORT_SLEEVE_SHIRT": ("shirt", "top"),
    "NO_SLEEVE_SHIRT": ("shirt", "top"),
    "OTHER_UPPER_BODY": ("jacket", "coat"),
    "LONG_PANTS": ("trousers", "pants"),
    "SHORT_PANTS": ("trousers", "pants"),
    "OTHER_LOWER_BODY": ("skirt",),
    "LONG_DRESS": ("dress",),
    "SHORT_DRESS": ("dress",),
    "FULL_BODY_OUTFIT": ("jumpsuit", "overalls"),
    "SHOES": ("shoes", "footwear"),
    "BOOTS": ("shoes", "footwear"),
}
_SLOTS = ("upper", "outer", "lower", "full", "feet")
# Names of the body, as unions of the parts that a doll is drawn of.
_BODY: dict[str, tuple[str, ...]] = {
    "face": ("face",),
    "hair": ("hair",),
    "head": ("face", "hair"),
    "hands": ("hands",),
    "arms": ("arms",),
    "legs": ("legs",),
    "feet": ("feet",),
    "clothes": _SLOTS,
    "person": (*_SLOTS, "body", "face", "hair", "arms", "hands", "legs"),
}
_MAX_TEXTS = 4


class DollSegments:
    """The dolls of a `DollSource`."""

    def __init__(self, source: DollSource) -> None:
        self.name = source.name
        self.weight = source.weight
        self._source = source

    def __len__(self) -> int:
        return self._source.dolls

    def sample(
        self, index: int, width: int, height: int, generator: np.random.Generator, form: Form | None = None
    ) -> SegmentSample:
        """As `Segments`."""
        doll = sample_doll((self._source.seed, index))
        rendered = render_doll(doll, (width, height))
        masks = [np.any([rendered.parts[part] for part in parts], axis=0) for parts in _BODY.values()]
        alpha = masks[list(_BODY).index("person")].astype(np.float32)
        texts: dict[str, list[int]] = {}
        if form != "phrase":
            for name in shuffled(generator, list(_BODY))[: whole(generator, 1, _MAX_TEXTS)]:
                texts[name] = [list(_BODY).index(name)]
            texts |= {name: [] for name in _absent(generator)}
        for garment in doll.garments:
            texts.setdefault(_name(garment, generator), [])
        for garment in doll.garments:
            masks.append(rendered.parts[GARMENTS[garment.kind].slot])
            for name, numbers in texts.items():
                if _fits(name, garment):
                    numbers.append(len(masks) - 1)
        if form == "phrase":
            seen = [name for name, numbers in texts.items() if any(masks[number].any() for number in numbers)]
            name = pick(generator, seen)
            texts = {name: texts[name]}
        article = "the " if form == "phrase" or (form is None and generator.random() < 0.5) else ""
        texts = {f"{article}{name}": texts[name] for name in shuffled(generator, list(texts))}
        return asked(rendered.image[..., :3].copy(), alpha, masks, texts)


def _words(garment: Garment) -> tuple[str, ...]:
    kind = GARMENTS[garment.kind]
    return (kind.name, *_GARMENT_WORDS[kind.garment_class])


def _name(garment: Garment, generator: np.random.Generator) -> str:
    """One name of a garment, sometimes with its colour."""
    name = pick(generator, _words(garment))
    return f"{garment.colour} {name}" if generator.random() < 0.3 else name


def _fits(name: str, garment: Garment) -> bool:
    return name in _words(garment) or name in [f"{garment.colour} {word}" for word in _words(garment)]


def _absent(generator: np.random.Generator) -> list[str]:
    """Names of clothes that may well not be worn."""
    kinds = shuffled(generator, list(GARMENTS.values()))[: whole(generator, 1, 3)]
    names = [pick(generator, (kind.name, *_GARMENT_WORDS[kind.garment_class])) for kind in kinds]
    colour = pick(generator, list(COLOURS))
    return [name if generator.random() < 0.7 else f"{colour} {name}" for name in names]
