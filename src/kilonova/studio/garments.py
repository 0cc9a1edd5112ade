"""What the segmenter is asked for, and the model told, for each class of garment and part of the body."""

from __future__ import annotations

from dataclasses import dataclass

from kilonova.studio.tasks import BodyPart, GarmentClass, GarmentMask


@dataclass(frozen=True)
class Garment:
    """What garments of a class cover, as phrases of which any may be found, and what they are called, if alike."""

    phrases: tuple[str, ...]
    name: str = ""


_UPPER = ("the shirt", "the jacket")
_LOWER = ("the pants", "the skirt")
_FULL = ("the dress", "the jumpsuit", *_UPPER, *_LOWER)
_SHOES = ("the shoes",)
_ARMS = ("the arms",)
_LEGS = ("the legs",)

GARMENTS: dict[GarmentClass, Garment] = {
    "UPPER_BODY": Garment(_UPPER),
    "LOWER_BODY": Garment(_LOWER),
    "FULL_BODY": Garment(_FULL),
    "FOOTWEAR": Garment(_SHOES),
    "LONG_SLEEVE_SHIRT": Garment((*_UPPER, *_ARMS), "a long-sleeved shirt"),
    "SHORT_SLEEVE_SHIRT": Garment(_UPPER, "a T-shirt"),
    "NO_SLEEVE_SHIRT": Garment(_UPPER, "a tank top"),
    "OTHER_UPPER_BODY": Garment((*_UPPER, *_ARMS), "a jacket"),
    "LONG_PANTS": Garment((*_LOWER, *_LEGS), "long pants"),
    "SHORT_PANTS": Garment(_LOWER, "shorts"),
    "OTHER_LOWER_BODY": Garment(_LOWER, "a skirt"),
    "LONG_DRESS": Garment((*_FULL, *_LEGS), "a long dress"),
    "SHORT_DRESS": Garment(_FULL, "a short dress"),
    "FULL_BODY_OUTFIT": Garment((*_FULL, *_LEGS), "a jumpsuit"),
    "OTHER_FULL_BODY": Garment(_FULL),
    "SHOES": Garment(_SHOES, "shoes"),
    "BOOTS": Garment((*_SHOES, *_LEGS), "boots"),
    "OTHER_FOOTWEAR": Garment(_SHOES),
}

BODY_PARTS: dict[BodyPart, tuple[str, ...]] = {
    "face": ("the face",),
    "hands": ("the hands",),
    "pose": ("the head", "the hands"),
}

_STYLING: tuple[tuple[str, str, str], ...] = (
    ("long_sleeves", "sleeves down", "sleeves rolled up"),
    ("tucked", "tucked in", "not tucked in"),
    ("open", "open", "closed"),
)


def covered(mask: GarmentMask) -> tuple[str, ...]:
    """What a garment as `mask` describes it goes over: phrases, any of which the picture may show."""
    phrases = GARMENTS[mask.garment].phrases
    return tuple(dict.fromkeys((*phrases, *_ARMS))) if mask.long_sleeves else phrases


def caption(mask: GarmentMask) -> str:
    """Words for a garment as `mask` describes it; none where the reference says it all."""
    styling = [yes if getattr(mask, name) else no for name, yes, no in _STYLING if getattr(mask, name) is not None]
    return ", ".join(filter(None, (GARMENTS[mask.garment].name, *styling)))
