"""Questions about a scene with exact answers, in the manner of TIFA (Hu et al. 2023, arXiv:2303.11897)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from kilonova.data.world import geometry
from kilonova.data.world.chance import pick, shuffled, whole
from kilonova.data.world.colours import BACKGROUND_COLOURS, COLOURS
from kilonova.data.world.describe import Description, unique_descriptions
from kilonova.data.world.kinds import KINDS, TEXTURES
from kilonova.data.world.sampling import WORDS
from kilonova.data.world.scene import BACKGROUNDS, COLOURED_BACKGROUNDS, Scene
from kilonova.data.world.wording import RELATION_WORDS, place_name, with_article

QUESTION_KINDS: tuple[str, ...] = (
    "object", "counting", "color", "texture", "shape", "relation", "position", "size", "text", "background",
)  # fmt: skip
YES_NO: tuple[str, ...] = ("yes", "no")
_CHOICES = 4
_SIZE_RATIO = 1.25
# Absent kinds that could still be seen in a present one, so nobody should be asked for them.
_LOOKALIKES: dict[str, tuple[str, ...]] = {
    "gift": ("box",), "box": ("gift",), "kite": ("diamond",), "diamond": ("kite",), "apple": ("leaf",),
    "flower": ("leaf",), "sun": ("star",), "cup": ("ring", "bottle"), "key": ("ring",), "castle": ("house",),
}  # fmt: skip
_PARTS_OF_MANY = frozenset({"circle", "square", "triangle", "ring"})


@dataclass(frozen=True)
class Question:
    """`kind` is one of `QUESTION_KINDS`; `choices` holds `answer`; `subjects` are indices of the things it is about."""

    kind: str
    text: str
    answer: str
    choices: tuple[str, ...]
    subjects: tuple[int, ...] = ()


def questions(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """All kinds of questions that the scene allows, yes and no about balanced; order and wording depend on `rng`."""
    asked = [
        *_presence(scene, rng), *_counts(scene, rng), *_looks(scene, rng), *_relations(scene, rng),
        *_positions(scene, rng), *_sizes(scene, rng), *_text(scene, rng), *_background(scene, rng),
    ]  # fmt: skip
    return list(dict.fromkeys(asked))


def absent_kinds(scene: Scene) -> list[str]:
    """Kinds of which the picture shows nothing, not even as a part or a pattern of something else."""
    present = {thing.kind for thing in scene.objects}
    hidden = {name for kind in present for name in _LOOKALIKES.get(kind, ())}
    simple = all(KINDS[t.kind].group == "shape" and t.texture in ("plain", "outlined") for t in scene.objects)
    if not simple or scene.background.kind == "checkered":
        hidden |= _PARTS_OF_MANY
    if scene.background.kind == "night":
        hidden.add("star")
    return [kind for kind in KINDS if kind not in present | hidden]


def _with(rng: np.random.Generator, answer: str, others: Sequence[str], likely: Sequence[str] = ()) -> tuple[str, ...]:
    """The answer among others in random order, `likely` ones first to be taken."""
    likely = [other for other in dict.fromkeys(likely) if other != answer]
    rest = [other for other in others if other != answer and other not in likely]
    wrong = (shuffled(rng, likely) + shuffled(rng, rest))[: _CHOICES - 1]
    return tuple(shuffled(rng, [answer, *wrong]))


def _presence(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """Every kind that is there, and for each another that is not, often of the same group (as POPE samples them)."""
    asked = []
    present = list(dict.fromkeys(thing.kind for thing in scene.objects))
    absent = absent_kinds(scene)
    for kind in present:
        wording = pick(rng, ("Is there {} in the picture?", "Does the picture show {}?", "Can you see {}?"))
        subjects = tuple(Description(kind).fitting(scene))
        asked.append(Question("object", wording.format(with_article(kind)), "yes", YES_NO, subjects))
        alike = [other for other in absent if KINDS[other].group == KINDS[kind].group]
        other = pick(rng, alike if alike and rng.random() < 0.6 else absent)
        asked.append(Question("object", wording.format(with_article(other)), "no", YES_NO))
    if not present:
        asked.append(Question("object", f"Is there {with_article(pick(rng, absent))} in the picture?", "no", YES_NO))
    return asked


def _counts(scene: Scene, rng: np.random.Generator) -> list[Question]:
    asked = []
    for kind in dict.fromkeys(thing.kind for thing in scene.objects):
        subjects = Description(kind).fitting(scene)
        count = len(subjects)
        near = [str(other) for other in range(max(1, count - 2), count + 3)]
        text = pick(rng, ("How many {} are there?", "How many {} does the picture show?")).format(KINDS[kind].plural)
        asked.append(Question("counting", text, str(count), _with(rng, str(count), near), tuple(subjects)))
    return asked


def _looks(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """Colour, texture and kind of what can be singled out without naming that, and wrongly bound colours."""
    asked = []
    colours = [thing.colour for thing in scene.objects]
    for index, thing in enumerate(scene.objects):
        subjects = (index,)
        if noun := _noun(scene, index, rng, "colour"):
            choices = _with(rng, thing.colour, list(COLOURS), colours)
            asked.append(Question("color", f"What color is the {noun}?", thing.colour, choices, subjects))
            said = thing.colour if rng.random() < 0.5 else pick(rng, [c for c in choices if c != thing.colour])
            answer = "yes" if said == thing.colour else "no"
            asked.append(Question("color", f"Is the {noun} {said}?", answer, YES_NO, subjects))
        if noun := _noun(scene, index, rng, "texture"):
            choices = _with(rng, thing.texture, TEXTURES)
            text = f"Is the {noun} {', '.join(choices[:-1])} or {choices[-1]}?"
            asked.append(Question("texture", text, thing.texture, choices, subjects))
        if noun := _noun(scene, index, rng, "kind"):
            group = KINDS[thing.kind].group
            absent = absent_kinds(scene)
            choices = _with(rng, thing.kind, absent, [kind for kind in absent if KINDS[kind].group == group])
            kind, text = ("shape", "What shape is the {}?") if group == "shape" else ("object", "What is the {}?")
            asked.append(Question(kind, text.format(noun), thing.kind, choices, subjects))
        elsewhere = [c for c in dict.fromkeys(colours) if not Description(thing.kind, c).fitting(scene)]
        if elsewhere:
            text = f"Is there {with_article(f'{pick(rng, elsewhere)} {thing.kind}')}?"
            asked.append(Question("color", text, "no", YES_NO))
    return asked


def _noun(scene: Scene, index: int, rng: np.random.Generator, hidden: str = "size") -> str:
    """The shortest phrase that singles a thing out without saying `hidden`, or "" if there is none."""
    found = unique_descriptions(scene, index, {hidden, "size"})
    if hidden != "kind":
        found = [one for one in found if one.kind]
    return found[0].words(rng) if found else ""


def _relations(scene: Scene, rng: np.random.Generator) -> list[Question]:
    asked = []
    found = geometry.relations(scene)
    for i, j in shuffled(rng, sorted(found))[:_CHOICES]:
        first, second = _noun(scene, i, rng), _noun(scene, j, rng)
        if not first or not second:
            continue
        touching = [name for name in ("inside", "on top of", "in front of", "behind") if name in found[i, j]]
        name = touching[0] if touching else pick(rng, sorted(found[i, j]))
        text = "Is the {} {} the {}?"
        wrong = {**geometry.OPPOSITE, "inside": "outside", "on top of": "below"}[name]
        for answer, said in (("yes", RELATION_WORDS[name][0]), ("no", RELATION_WORDS.get(wrong, (wrong,))[0])):
            asked.append(Question("relation", text.format(first, said, second), answer, YES_NO, (i, j)))
        false = [other for other in ("left of", "right of", "above", "below", "inside") if other not in found[i, j]]
        if not touching or name == "inside":
            text = f"Where is the {first}, seen from the {second}?"
            asked.append(Question("relation", text, name, _with(rng, name, false), (i, j)))
    return asked


def _positions(scene: Scene, rng: np.random.Generator) -> list[Question]:
    asked = []
    names = [place_name((row, column)) for row in geometry.ROWS for column in geometry.COLUMNS]
    for index in range(len(scene.objects)):
        place, noun = geometry.place(scene, index), _noun(scene, index, rng)
        if place and noun:
            text = pick(rng, ("Where in the picture is the {}?", "In which part of the picture is the {}?"))
            choices = _with(rng, place_name(place), names)
            asked.append(Question("position", text.format(noun), place_name(place), choices, (index,)))
    return asked


def _sizes(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """Which of two is larger, where the one is both longer and of more area than the other by a quarter."""
    named = [(index, noun) for index in range(len(scene.objects)) if (noun := _noun(scene, index, rng))]
    asked = []
    for (i, first), (j, second) in pairwise(named):
        length = scene.objects[i].pose.scale / scene.objects[j].pose.scale
        area = geometry.area(scene, i) / geometry.area(scene, j)
        if min(length, area) >= _SIZE_RATIO or max(length, area) <= 1 / _SIZE_RATIO:
            word = pick(rng, ("larger", "smaller"))
            answer = first if (area > 1) == (word == "larger") else second
            text = f"Which is {word}, the {first} or the {second}?"
            asked.append(Question("size", text, answer, (first, second), (i, j)))
    return asked


def _text(scene: Scene, rng: np.random.Generator) -> list[Question]:
    if scene.text is None:
        return [Question("text", "Is there a word in the picture?", "no", YES_NO)] if rng.random() < 0.3 else []
    text = scene.text
    likely = [word for word in WORDS if len(word) == len(text.word)]
    return [
        Question("text", "Is there a word in the picture?", "yes", YES_NO),
        Question("text", "What does the text say?", text.word, _with(rng, text.word, WORDS, likely)),
        Question("text", "What color are the letters?", text.colour, _with(rng, text.colour, list(COLOURS))),
    ]


def _background(scene: Scene, rng: np.random.Generator) -> list[Question]:
    background = scene.background
    if background.colour is None:
        landscapes = [kind for kind in BACKGROUNDS if kind not in COLOURED_BACKGROUNDS]
        return [Question("background", "What is in the background?", background.kind,
                         _with(rng, background.kind, landscapes))]  # fmt: skip
    thing = "walls of the room" if background.kind == "room" else "background"
    verb = "are" if background.kind == "room" else "is"
    choices = _with(rng, background.colour, list(BACKGROUND_COLOURS))
    asked = [Question("background", f"What color {verb} the {thing}?", background.colour, choices)]
    if background.kind != "room":
        answer = "yes" if background.kind == "checkered" else "no"
        asked.append(Question("background", "Is the background checkered?", answer, YES_NO))
    return asked[: whole(rng, 1, 2)]
