"""Captions, short and long, of which every statement is recorded and true by geometry."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from kilonova.data.world import geometry
from kilonova.data.world.chance import pick, shuffled
from kilonova.data.world.describe import Description, describe, unique_descriptions
from kilonova.data.world.scene import Scene, SceneText
from kilonova.data.world.wording import (
    RELATION_WORDS,
    background_name,
    background_words,
    counted,
    listing,
    place_name,
    place_words,
    sentence,
)

_OPENINGS = ("a picture of {}", "an illustration of {}", "a drawing of {}", "an image of {}")
_TEXT_SHORT = ('the word "{word}" in {colour} letters', 'the text "{word}" in {colour}', 'the word "{word}"')
_TEXT_LONG = (
    'the word "{word}" is written in {colour} letters at the {place}',
    'at the {place} it says "{word}" in {colour} letters',
    '{colour} letters at the {place} spell "{word}"',
)
_MAX_RELATIONS = 3


@dataclass(frozen=True)
class Claim:
    """One statement about the things `subjects` (indices into the scene's).

    `aspect` "count": that many (a number) things fit what is said of them; "kind", "colour", "texture", "size": all
    subjects have that value; "relation": the subject stands in relation `value` to the thing `other`; "place": the
    subject is there, such as "top left"; "background", "text": the name of the background, the word; no subjects.
    """

    aspect: str
    subjects: tuple[int, ...]
    value: str
    other: int | None = None


@dataclass(frozen=True)
class Caption:
    """A caption and all that it says."""

    text: str
    claims: tuple[Claim, ...]


class _Speaker:
    """Finds words for parts of one scene and keeps what was claimed."""

    def __init__(self, scene: Scene, rng: np.random.Generator) -> None:
        self.scene, self.rng = scene, rng
        self.claims: list[Claim] = []
        alike: dict[tuple[str, str, str], list[int]] = defaultdict(list)
        for index, thing in enumerate(scene.objects):
            alike[thing.kind, thing.colour, thing.texture].append(index)
        self.groups = [tuple(indices) for indices in alike.values()]

    def claim(self, aspect: str, subjects: tuple[int, ...], value: str, other: int | None = None) -> None:
        self.claims.append(Claim(aspect, subjects, value, other))

    def group(self, indices: tuple[int, ...], *, detail: float) -> str:
        """Things that are alike, as in "two small red stars".

        Each of the looks is said with probability `detail`, and always where it must tell two groups of a kind apart.
        """
        thing = self.scene.objects[indices[0]]
        needed = len(Description(thing.kind).fitting(self.scene)) > len(indices)
        aspects = ["kind"]
        if needed or self.rng.random() < detail:
            aspects.append("colour")
        if needed or (thing.texture != "plain" and self.rng.random() < detail):
            aspects.append("texture")
        same_size = len({self.scene.objects[index].size for index in indices}) == 1
        if same_size and thing.size != "medium" and self.rng.random() < detail - 0.4:
            aspects.append("size")
        self.claim("count", indices, str(len(indices)))
        for name in aspects:
            self.claim(name, indices, getattr(thing, name))
        return counted(describe(thing, *aspects).words(self.rng), thing.kind, len(indices))

    def can_name(self, index: int) -> bool:
        """Whether a thing's looks tell it from all others."""
        return bool(self._names(index))

    def again(self, index: int) -> str:
        """A thing that was mentioned: "the star", with as much of its looks as tells it apart."""
        name = self._names(index)[0]
        for aspect in ("kind", "colour", "texture"):
            if value := getattr(name, aspect):
                self.claim(aspect, (index,), value)
        return "the " + name.words(self.rng)

    def _names(self, index: int) -> list[Description]:
        return [name for name in unique_descriptions(self.scene, index, {"size"}) if name.kind]

    def relation(self, i: int, j: int) -> str:
        """One of the relations between two things, as in "to the left of"; nothing if there is none."""
        names = sorted(geometry.relations(self.scene).get((i, j), ()))
        if not names:
            return ""
        close = [name for name in names if name in ("inside", "on top of", "in front of", "behind")]
        name = pick(self.rng, close or names)
        self.claim("relation", (i,), name, j)
        return pick(self.rng, RELATION_WORDS[name])

    def place(self, index: int) -> str:
        """Where a thing is, as in "in the top left corner"; nothing between two parts of the frame."""
        found = geometry.place(self.scene, index)
        if found is None:
            return ""
        self.claim("place", (index,), place_name(found))
        return pick(self.rng, place_words(found))

    def background(self) -> str:
        self.claim("background", (), background_name(self.scene.background))
        return background_words(self.scene.background, self.rng)

    def text(self, text: SceneText, wordings: tuple[str, ...]) -> str:
        self.claim("text", (), text.word)
        return pick(self.rng, wordings).format(word=text.word, colour=text.colour, place=text.place)


def short_caption(scene: Scene, rng: np.random.Generator) -> Caption:
    """One phrase: the things with most of their looks, sometimes how they stand, where, and on what background."""
    speaker = _Speaker(scene, rng)
    parts: list[str] = []
    if len(scene.objects) == 2 and len(speaker.groups) == 2 and rng.random() < 0.75:
        i, j = shuffled(rng, (0, 1))
        if relation := speaker.relation(i, j):
            parts = [f"{speaker.group((i,), detail=0.9)} {relation} {speaker.group((j,), detail=0.9)}"]
    if not parts:
        parts = [speaker.group(group, detail=0.85) for group in shuffled(rng, speaker.groups)]
        if len(scene.objects) == 1 and rng.random() < (0.9 if scene.task == "position" else 0.2):
            parts = [" ".join(filter(None, (parts[0], speaker.place(0))))]
    if scene.text is not None:
        parts.append(speaker.text(scene.text, _TEXT_SHORT))
    text = listing(parts) if parts else ""
    if not parts or rng.random() < 0.4:
        text = f"{text or 'nothing'} {speaker.background()}"
    style = rng.random()
    if style < 0.2:
        text = pick(rng, _OPENINGS).format(text)
    return Caption(sentence(text) if rng.random() < 0.3 else text, tuple(speaker.claims))


def long_caption(scene: Scene, rng: np.random.Generator) -> Caption:
    """Several sentences: all things with all their looks and the background, then how they stand to each other and
    where they are, and the text."""
    speaker = _Speaker(scene, rng)
    groups = shuffled(rng, speaker.groups)
    if groups:
        listed = listing([speaker.group(group, detail=1.0) for group in groups])
        verb = "are" if len(groups[0]) > 1 else "is"
        opening = pick(rng, (f"there {verb} {listed}", f"the picture shows {listed}", f"an illustration of {listed}"))
    else:
        opening = "a simple picture" if scene.text is None else "a single word"
    sentences = [f"{opening} {speaker.background()}"]
    sentences.extend(_relations(speaker))
    sentences.extend(_places(speaker))
    if scene.text is not None:
        sentences.append(speaker.text(scene.text, _TEXT_LONG))
    return Caption(" ".join(sentence(one) for one in sentences), tuple(speaker.claims))


def _relations(speaker: _Speaker) -> list[str]:
    """A few sentences on pairs of things that can be told apart, those that touch each other first."""
    scene, rng = speaker.scene, speaker.rng
    relations = geometry.relations(scene)
    pairs = shuffled(rng, sorted({(min(pair), max(pair)) for pair in relations}))
    pairs.sort(key=lambda pair: scene.objects[pair[1]].parent != pair[0])
    found = []
    for pair in pairs[:_MAX_RELATIONS]:
        i, j = pick(rng, [way for way in (pair, pair[::-1]) if way in relations])
        if speaker.can_name(i) and speaker.can_name(j):
            found.append(f"{speaker.again(i)} is {speaker.relation(i, j)} {speaker.again(j)}")
    return found


def _places(speaker: _Speaker) -> list[str]:
    """A few sentences on where things are that can be told apart and are clearly somewhere."""
    scene = speaker.scene
    clear = [i for i in range(len(scene.objects)) if speaker.can_name(i) and geometry.place(scene, i)]
    wanted = 1 if len(scene.objects) == 1 else int(speaker.rng.random() * 3)
    return [f"{speaker.again(i)} is {speaker.place(i)}" for i in shuffled(speaker.rng, clear)[:wanted]]
