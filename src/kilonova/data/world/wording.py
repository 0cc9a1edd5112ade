"""English for what a scene holds: articles, plurals, numbers, lists, and the words for looks, places and relations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kilonova.data.world.chance import pick
from kilonova.data.world.kinds import KINDS
from kilonova.data.world.scene import Background

NUMBERS: tuple[str, ...] = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
TEXTURE_WORDS: dict[str, tuple[str, ...]] = {
    "plain": ("plain",), "striped": ("striped",), "dotted": ("dotted", "spotted", "polka-dotted"),
    "checkered": ("checkered",), "outlined": ("outlined",), "shiny": ("shiny", "glossy"),
}  # fmt: skip
SIZE_WORDS: dict[str, tuple[str, ...]] = {"small": ("small", "little"), "medium": ("medium-sized",),
                                          "large": ("large", "big")}  # fmt: skip
RELATION_WORDS: dict[str, tuple[str, ...]] = {
    "left of": ("to the left of", "left of", "on the left of"),
    "right of": ("to the right of", "right of", "on the right of"),
    "above": ("above",),
    "below": ("below", "beneath"),
    "in front of": ("in front of",),
    "behind": ("behind",),
    "inside": ("inside",),
    "on top of": ("on top of", "on"),
}
BACKGROUND_WORDS: dict[str, tuple[str, ...]] = {
    "plain": ("on a {colour} background", "against a plain {colour} background"),
    "gradient": ("on a {colour} gradient background", "against a {colour} gradient"),
    "checkered": ("on a {colour} checkered background", "against a {colour} checkered background"),
    "room": ("in a room with {colour} walls", "in a room with {colour} walls and a wooden floor"),
    "meadow": ("in a green meadow under a blue sky", "in a meadow"),
    "beach": ("on a sandy beach by the sea", "at the beach"),
    "snow": ("in a snowy landscape", "in the snow"),
    "sunset": ("in front of hills at sunset", "at sunset"),
    "night": ("under a starry night sky", "at night"),
}


def with_article(phrase: str) -> str:
    """A phrase after "a" or "an"."""
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def counted(phrase: str, kind: str, count: int) -> str:
    """`phrase`, which ends with the kind's name, as that many of it: "a red fish", "two red fish"."""
    if count == 1:
        return with_article(phrase)
    return f"{NUMBERS[count]} {phrase.removesuffix(kind)}{KINDS[kind].plural}"


def listing(parts: Sequence[str]) -> str:
    """The parts with commas and an "and" before the last: "a, b and c"."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def place_words(place: tuple[str, str]) -> tuple[str, ...]:
    """Ways of saying that something is in a (row, column) of the frame."""
    row, column = place
    if place == ("middle", "center"):
        return ("in the center", "in the middle of the picture")
    if row == "middle":
        return (f"on the {column}", f"on the {column} side", f"on the {column} side of the picture")
    if column == "center":
        return (f"at the {row}", f"at the {row} of the picture")
    return (f"in the {row} {column} corner", f"in the {row} {column}", f"at the {row} {column}")


def place_name(place: tuple[str, str]) -> str:
    """The short name of a (row, column): "top left", "left", "top", "center"."""
    row, column = place
    if row == "middle":
        return column
    return row if column == "center" else f"{row} {column}"


def background_words(background: Background, rng: np.random.Generator) -> str:
    """Where all this is, as in "on a white background"."""
    return pick(rng, BACKGROUND_WORDS[background.kind]).format(colour=background.colour)


def background_name(background: Background) -> str:
    """The short name of a background: "light blue", "light blue gradient", "beach"."""
    if background.colour is None:
        return background.kind
    return background.colour if background.kind == "plain" else f"{background.colour} {background.kind}"


def sentence(text: str) -> str:
    """With a capital at the start and a period at the end."""
    return text[0].upper() + text[1:] + ("" if text.endswith((".", "?", "!")) else ".")
