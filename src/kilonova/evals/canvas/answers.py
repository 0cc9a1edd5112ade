"""Answers to questions about drawn scenes, read off what is seen in a picture."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from kilonova.core.errors import DataError
from kilonova.data.world.kinds import KINDS
from kilonova.data.world.questions import Question
from kilonova.data.world.scene import COLOURED_BACKGROUNDS
from kilonova.data.world.wording import RELATION_WORDS
from kilonova.evals.canvas import nouns
from kilonova.evals.canvas.recogniser import SeenPicture, SeenThing
from kilonova.evals.canvas.spatial import place_of, relation_margins

UNANSWERED = ""
_PRESENCE = re.compile(r"(?:Is there|Does the picture show|Can you see) (an? .+?)(?: in the picture)?\?")
_COUNT = re.compile(r"How many (.+) (?:are there|does the picture show)\?")
_COLOUR = re.compile(r"What color is the (.+)\?")
_WHAT = re.compile(r"What(?: shape)? is the (.+)\?")
_SEEN_FROM = re.compile(r"Where is the (.+), seen from the (.+)\?")
_PLACE = re.compile(r"(?:Where|In which part) (?:in|of) the picture is the (.+)\?")
_SIZE = re.compile(r"Which is (larger|smaller), .+\?")
_SAID = {words[0]: name for name, words in RELATION_WORDS.items()} | {"outside": "outside"}


def answer(question: Question, seen: SeenPicture) -> str:
    """What the picture answers, one of `question.choices`; `UNANSWERED` where it lacks what is asked about.

    DataError for a question in words that no drawn scene is asked in.
    """
    match question.kind:
        case "text":
            return _text(question, seen)
        case "background":
            return _background(question, seen)
        case "counting":
            plural = _parts(_COUNT, question)[0]
            return str(sum(KINDS[thing.kind].plural == plural for thing in seen.things))
        case "relation":
            return _relation(question, seen)
        case "size":
            return _size(question, seen)
        case "position":
            return _of_thing(seen, _parts(_PLACE, question)[0], place_of)
        case "texture":
            return _texture(question, seen)
    if found := _PRESENCE.fullmatch(question.text):
        noun = nouns.read_noun(found[1])
        return _yes(any(nouns.fits(thing, noun) for thing in seen.things))
    if question.kind == "color":
        return _colour(question, seen)
    return _of_thing(seen, _parts(_WHAT, question)[0], lambda thing: thing.kind)


def _parts(pattern: re.Pattern[str], question: Question) -> Sequence[str]:
    found = pattern.fullmatch(question.text)
    if found is None:
        raise DataError(f"question {question.text!r}: is not in the words that are known")
    return found.groups()


def _yes(holds: bool) -> str:
    return "yes" if holds else "no"


def _of_thing(seen: SeenPicture, phrase: str, tell: Callable[[SeenThing], str]) -> str:
    thing = nouns.best(seen.things, phrase)
    return UNANSWERED if thing is None else tell(thing)


def _likeliest(choices: Sequence[str], likely: Mapping[str, float]) -> str:
    return max(choices, key=lambda choice: likely.get(choice, 0.0))


def _colour(question: Question, seen: SeenPicture) -> str:
    if found := _COLOUR.fullmatch(question.text):
        return _of_thing(seen, found[1], lambda thing: thing.colour)
    phrase, _, colour = question.text.removeprefix("Is the ").removesuffix("?").rpartition(" ")
    return _of_thing(seen, phrase, lambda thing: _yes(thing.colour == colour))


def _texture(question: Question, seen: SeenPicture) -> str:
    choices = f" {', '.join(question.choices[:-1])} or {question.choices[-1]}?"
    phrase = question.text.removeprefix("Is the ").removesuffix(choices)
    return _of_thing(seen, phrase, lambda thing: _likeliest(question.choices, thing.textures))


def _relation(question: Question, seen: SeenPicture) -> str:
    if found := _SEEN_FROM.fullmatch(question.text):
        margins = _margins(seen, found[1], found[2])
        return UNANSWERED if margins is None else _likeliest_margin(question.choices, margins)
    for said, name in _SAID.items():
        first, between, second = question.text.removeprefix("Is the ").removesuffix("?").partition(f" {said} the ")
        if between:
            margins = _margins(seen, first, second)
            return UNANSWERED if margins is None else _yes(margins[name] > 0)
    raise DataError(f"question {question.text!r}: asks for no known relation")


def _margins(seen: SeenPicture, first: str, second: str) -> dict[str, float] | None:
    one = nouns.best(seen.things, first)
    other = nouns.best([thing for thing in seen.things if thing is not one], second)
    return None if one is None or other is None else relation_margins(one, other)


def _likeliest_margin(choices: Sequence[str], margins: Mapping[str, float]) -> str:
    inside = "inside" in choices and margins["inside"] > 0
    return "inside" if inside else max((one for one in choices if one != "inside"), key=lambda one: margins[one])


def _size(question: Question, seen: SeenPicture) -> str:
    larger = _parts(_SIZE, question)[0] == "larger"
    first, second = (nouns.best(seen.things, phrase) for phrase in question.choices)
    if first is None or second is None or first is second:
        return UNANSWERED
    return question.choices[int((_area(first) < _area(second)) == larger)]


def _area(thing: SeenThing) -> int:
    return int(thing.mask.sum())


def _text(question: Question, seen: SeenPicture) -> str:
    written = max(seen.words, key=lambda word: seen.words[word]) != "none"
    if question.text == "Is there a word in the picture?":
        return _yes(written)
    if not written:
        return UNANSWERED
    return _likeliest(question.choices, seen.words if "say" in question.text else seen.letters)


def _background(question: Question, seen: SeenPicture) -> str:
    likely: dict[str, float] = {}
    for name, share in seen.backgrounds.items():
        kind = name.rpartition(" ")[2] if name.rpartition(" ")[2] in COLOURED_BACKGROUNDS else ""
        colour = name.removesuffix(f" {kind}")
        for meaning in {name, colour, kind}:
            likely[meaning] = likely.get(meaning, 0.0) + share
    if question.text == "Is the background checkered?":
        return _yes(likely.get("checkered", 0.0) > 0.5)
    return _likeliest(question.choices, likely)
