"""Referring expressions: phrases that fit exactly one thing of their scene."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kilonova.data.world import geometry
from kilonova.data.world.chance import pick
from kilonova.data.world.describe import Description, unique_descriptions
from kilonova.data.world.scene import Scene
from kilonova.data.world.wording import RELATION_WORDS

EXTREMES: dict[str, tuple[str, ...]] = {
    "left": ("leftmost",), "right": ("rightmost",), "top": ("topmost", "uppermost"), "bottom": ("lowest", "bottommost"),
    "largest": ("largest", "biggest"), "smallest": ("smallest",),
}  # fmt: skip
_EXTREME_GAP = 0.1
_EXTREME_RATIO = 1.25


@dataclass(frozen=True)
class Referring:
    """A phrase and the thing it means: `index` into the scene's objects and into `Rendered.masks`.

    The thing is the only one that `description` fits and that, if given, stands in `relation` (name, index of the other
    thing), or is the `extreme` one (a key of `EXTREMES`) of those that the description fits.
    """

    text: str
    index: int
    description: Description
    relation: tuple[str, int] | None = None
    extreme: str | None = None


def referring_expressions(scene: Scene, rng: np.random.Generator) -> list[Referring]:
    """Phrases for every thing that can be singled out: by looks, by a relation, and as the extreme of several."""
    found: list[Referring] = []
    for index, thing in enumerate(scene.objects):
        by_looks = unique_descriptions(scene, index)
        some = dict.fromkeys((by_looks[0], pick(rng, by_looks), by_looks[-1])) if by_looks else {}
        found.extend(Referring(f"the {known.words(rng)}", index, known) for known in some)
        heads = [Description(kind=thing.kind), Description(kind=thing.kind, colour=thing.colour)]
        for head in heads:
            for name, anchor in _telling_relations(scene, index, head):
                noun = pick(rng, [d for d in unique_descriptions(scene, anchor, {"size"}) if d.kind]).words(rng)
                text = f"the {head.words(rng)} {pick(rng, RELATION_WORDS[name])} the {noun}"
                found.append(Referring(text, index, head, relation=(name, anchor)))
            for extreme in _telling_extremes(scene, index, head):
                text = f"the {pick(rng, EXTREMES[extreme])} {head.words(rng)}"
                found.append(Referring(text, index, head, extreme=extreme))
    return sorted(found, key=lambda one: (one.index, one.text))


def _telling_relations(scene: Scene, index: int, head: Description) -> list[tuple[str, int]]:
    """(relation, other thing) that hold for this thing and plainly not for any other that `head` fits."""
    relations = geometry.relations(scene)
    found = []
    for anchor in range(len(scene.objects)):
        rivals = [other for other in head.fitting(scene) if other not in (index, anchor)]
        if not any(known.kind for known in unique_descriptions(scene, anchor, {"size"})):
            continue
        for name in sorted(relations.get((index, anchor), ())):
            opposite = geometry.OPPOSITE.get(name)
            if all(
                opposite in relations.get((rival, anchor), ()) if opposite and name not in ("in front of", "behind")
                else name not in relations.get((rival, anchor), ()) and not _touch(scene, rival, anchor)
                for rival in rivals
            ):  # fmt: skip
                found.append((name, anchor))
    return found


def _touch(scene: Scene, i: int, j: int) -> bool:
    boxes = geometry.boxes(scene)
    return bool((boxes[i, :2] <= boxes[j, 2:]).all() and (boxes[j, :2] <= boxes[i, 2:]).all())


def _telling_extremes(scene: Scene, index: int, head: Description) -> list[str]:
    """In which ways this thing plainly exceeds all others that `head` fits; none if there are no others."""
    rivals = [other for other in head.fitting(scene) if other != index]
    thing = scene.objects[index]
    if not rivals or any(scene.objects[one].parent is not None for one in (index, *rivals)):
        return []
    others = [scene.objects[other].pose for other in rivals]
    ahead = {
        "left": min(other.x for other in others) - thing.pose.x,
        "right": thing.pose.x - max(other.x for other in others),
        "top": min(other.y for other in others) - thing.pose.y,
        "bottom": thing.pose.y - max(other.y for other in others),
    }
    found = [name for name, gap in ahead.items() if gap >= _EXTREME_GAP]
    if thing.pose.scale >= _EXTREME_RATIO * max(other.scale for other in others):
        found.append("largest")
    if thing.pose.scale * _EXTREME_RATIO <= min(other.scale for other in others):
        found.append("smallest")
    return found
