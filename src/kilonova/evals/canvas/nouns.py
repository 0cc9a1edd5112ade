"""Noun phrases of questions, such as "small striped red fish", and the seen thing that fits one best."""

from __future__ import annotations

from collections.abc import Sequence

from kilonova.core.errors import DataError
from kilonova.data.world.colours import COLOURS
from kilonova.data.world.describe import Description
from kilonova.data.world.kinds import KINDS
from kilonova.data.world.wording import SIZE_WORDS, TEXTURE_WORDS
from kilonova.evals.canvas.recogniser import SeenThing

_SIZES = {word: name for name, words in SIZE_WORDS.items() for word in words}
_TEXTURES = {word: name for name, words in TEXTURE_WORDS.items() for word in words}
_ANYTHING = ("object", "thing")


def read_noun(phrase: str) -> Description:
    """What a noun phrase, with or without an article, says of a thing; DataError for words that say nothing."""
    words = phrase.split()
    if words[:1] in (["a"], ["an"], ["the"]):
        words = words[1:]
    kind, looks = None, words
    if words[-1:] and words[-1] in _ANYTHING:
        looks = words[:-1]
    else:
        for length in range(len(words), 0, -1):
            if (name := " ".join(words[-length:])) in KINDS:
                kind, looks = name, words[:-length]
                break
    said: dict[str, str] = {}
    for word in looks:
        if word in COLOURS:
            said["colour"] = word
        elif word in _TEXTURES:
            said["texture"] = _TEXTURES[word]
        elif word in _SIZES:
            said["size"] = _SIZES[word]
        else:
            raise DataError(f"noun {phrase!r}: {word!r} is neither a kind of thing nor a look")
    return Description(kind, **said)


def fits(thing: SeenThing, noun: Description) -> bool:
    """Whether a thing is of the kind, colour and texture that a noun says."""
    return (
        noun.kind in (None, thing.kind)
        and noun.colour in (None, thing.colour)
        and noun.texture in (None, thing.texture)
    )


def best(things: Sequence[SeenThing], phrase: str) -> SeenThing | None:
    """The thing that a noun phrase means: one of its kind with most of its looks, the largest of them.

    Without a kind, all looks must be right. None if there is no such thing.
    """
    noun = read_noun(phrase)
    candidates = [thing for thing in things if (fits(thing, noun) if noun.kind is None else thing.kind == noun.kind)]
    return max(
        candidates,
        key=lambda thing: (thing.colour == noun.colour, thing.texture == noun.texture, int(thing.mask.sum())),
        default=None,
    )
