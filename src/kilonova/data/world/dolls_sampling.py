"""Random paper dolls, each a function of its seed alone, and the words for them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from kilonova.data.world.chance import Seed, generator, pick, uniform, whole
from kilonova.data.world.colours import COLOURS, Rgb, distance
from kilonova.data.world.dolls_figure import HAIR, POSES
from kilonova.data.world.dolls_garments import GARMENTS, MOTIFS, Garment, Slot
from kilonova.data.world.kinds import TEXTURES
from kilonova.data.world.looks import choose_background
from kilonova.data.world.scene import Background
from kilonova.data.world.wording import TEXTURE_WORDS, background_words, listing, sentence, with_article

SKINS: tuple[Rgb, ...] = (
    (255, 224, 196), (246, 204, 168), (228, 178, 136), (198, 142, 100), (156, 104, 70), (112, 74, 52),
)  # fmt: skip
HAIR_COLOURS: dict[str, Rgb] = {
    "black": (46, 42, 52), "brown": (112, 70, 46), "dark brown": (78, 50, 40), "blond": (238, 200, 112),
    "red": (196, 88, 46), "gray": (178, 180, 188), "white": (238, 238, 242), "pink": (240, 140, 184),
    "blue": (84, 124, 210),
}  # fmt: skip
_HAIR_WORDS: dict[str, str] = {
    "short": "short {} hair", "long": "long {} hair", "bob": "a {} bob", "bun": "{} hair in a bun",
    "ponytail": "a {} ponytail", "braided": "{} braids", "curly": "curly {} hair",
}  # fmt: skip
_APART = 30.0
_PLAIN_SHARE = 0.55
_OPENINGS = ("a person with {}", "a paper doll with {}", "an illustration of a person with {}", "someone with {}")


@dataclass(frozen=True)
class Doll:
    """A dressed person before a background.

    `pose` is an index into `POSES`, `skin` into `SKINS`; `build` scales its width; `x` is the place of its middle as a
    share of the frame's width and `scale` its size, 1 filling the frame. `garments` are one of the slot "full", or one
    each of "upper" and "lower", the former `tucked` into the latter or not, then one of "feet" and perhaps an "outer".
    """

    pose: int
    skin: int
    hair: str
    hair_colour: str
    build: float
    x: float
    scale: float
    garments: tuple[Garment, ...]
    tucked: bool = False
    background: Background = field(default_factory=Background)

    def worn(self, slot: Slot) -> Garment | None:
        """What is worn there."""
        return next((garment for garment in self.garments if GARMENTS[garment.kind].slot == slot), None)


def sample_garment(rng: np.random.Generator, slot: Slot, apart_from: tuple[str, ...] = ()) -> Garment:
    """A garment of a slot whose colour is plainly another than those of `apart_from`."""
    kind = pick(rng, [name for name, found in GARMENTS.items() if found.slot == slot])
    colours = [
        name for name in COLOURS if all(distance(COLOURS[name], COLOURS[other]) >= _APART for other in apart_from)
    ]
    patterned = slot != "feet" and rng.random() >= _PLAIN_SHARE
    texture = pick(rng, TEXTURES[1:]) if patterned else "plain"
    motif = pick(rng, MOTIFS) if kind in ("T-shirt", "long-sleeved shirt", "tank top") and not patterned else ""
    return Garment(kind, pick(rng, colours), texture, motif if rng.random() < 0.6 else "")


def sample_doll(seed: Seed) -> Doll:
    """A doll that depends on `seed` (a number, or (seed, index)) only."""
    rng = generator(seed)
    garments: list[Garment] = []
    slots: list[Slot] = ["full", "feet"] if rng.random() < 0.35 else ["upper", "lower", "feet"]
    if slots[0] == "upper" and rng.random() < 0.3:
        slots.append("outer")
    for slot in slots:
        garments.append(sample_garment(rng, slot, tuple(garment.colour for garment in garments)))
    return Doll(
        pose=whole(rng, 0, len(POSES) - 1),
        skin=whole(rng, 0, len(SKINS) - 1),
        hair=pick(rng, HAIR),
        hair_colour=pick(rng, list(HAIR_COLOURS)),
        build=uniform(rng, 0.9, 1.12),
        x=uniform(rng, 0.46, 0.54),
        scale=uniform(rng, 0.9, 1.0),
        garments=tuple(garments),
        tucked=rng.random() < 0.5,
        background=choose_background(rng, [("", garment.colour, garment.texture) for garment in garments], None),
    )


def garment_words(garment: Garment, rng: np.random.Generator) -> str:
    """A garment with its looks, as in "a striped red T-shirt"."""
    texture = "" if garment.texture == "plain" else pick(rng, TEXTURE_WORDS[garment.texture])
    kind = GARMENTS[garment.kind]
    phrase = " ".join(filter(None, (texture, garment.colour, kind.name)))
    if garment.motif:
        phrase += f" with {with_article(garment.motif)} on it"
    return phrase if kind.plural else with_article(phrase)


def doll_caption(doll: Doll, rng: np.random.Generator) -> str:
    """What the picture shows: hair, clothes, mostly how the person stands, and where."""
    hair = _HAIR_WORDS[doll.hair].format(doll.hair_colour)
    text = f"{pick(rng, _OPENINGS).format(hair)} wearing {listing([garment_words(one, rng) for one in doll.garments])}"
    if rng.random() < 0.7:
        text = f"{text}, {POSES[doll.pose].words}"
    if doll.tucked and doll.worn("upper") and rng.random() < 0.5:
        text = f"{text}, the {GARMENTS[doll.garments[0].kind].name} tucked in"
    if rng.random() < 0.6:
        text = f"{text}, {background_words(doll.background, rng)}"
    return sentence(text) if rng.random() < 0.3 else text


def garment_caption(garment: Garment, rng: np.random.Generator) -> str:
    """What a picture of a garment alone shows."""
    words = garment_words(garment, rng)
    return pick(rng, ("{}", "{} on a white background", "a picture of {}", "{}, without a person")).format(words)
