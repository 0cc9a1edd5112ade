"""Descriptions of things by what they are and how they look, and which things they fit."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from kilonova.data.world.chance import pick
from kilonova.data.world.scene import Scene, SceneObject
from kilonova.data.world.wording import SIZE_WORDS, TEXTURE_WORDS

ASPECTS: tuple[str, ...] = ("kind", "colour", "texture", "size")
_SIZE_RATIO = 1.25


@dataclass(frozen=True)
class Description:
    """Some of what can be said of a thing; None says nothing."""

    kind: str | None = None
    colour: str | None = None
    texture: str | None = None
    size: str | None = None

    def fits(self, thing: SceneObject) -> bool:
        """Whether all that is said is true of `thing`."""
        return all(getattr(self, name) in (None, getattr(thing, name)) for name in ASPECTS)

    def fitting(self, scene: Scene) -> list[int]:
        """Indices of all things that it fits."""
        return [index for index, thing in enumerate(scene.objects) if self.fits(thing)]

    def words(self, rng: np.random.Generator) -> str:
        """The noun phrase without an article, such as "small striped red fish" or "red object"."""
        size = pick(rng, SIZE_WORDS[self.size]) if self.size else ""
        texture = pick(rng, TEXTURE_WORDS[self.texture]) if self.texture else ""
        words = (size, texture, self.colour or "", self.kind or pick(rng, ("object", "thing")))
        return " ".join(word for word in words if word)


def describe(thing: SceneObject, *aspects: str) -> Description:
    """These of the thing's `ASPECTS`."""
    return Description(**{name: getattr(thing, name) for name in aspects})


def unique_descriptions(scene: Scene, index: int, without: Container[str] = ()) -> list[Description]:
    """All descriptions that fit this thing and no other, the shortest first, none with an aspect of `without`.

    They tell apart by size only things of one kind that differ in scale by a quarter or more.
    """
    thing = scene.objects[index]
    aspects = [name for name in ASPECTS if name not in without]
    found = []
    for count in range(1, len(aspects) + 1):
        for names in combinations(aspects, count):
            rest = describe(thing, *(name for name in names if name != "size"))
            others = [other for other in rest.fitting(scene) if other != index]
            if "size" in names:
                unlike = all(_plainly_another_size(thing, scene.objects[other]) for other in others)
                if thing.size == "medium" or "kind" not in names or not others or not unlike:
                    continue
            elif others or names == ("texture",):
                continue
            found.append(describe(thing, *names))
    return found


def _plainly_another_size(first: SceneObject, second: SceneObject) -> bool:
    ratio = first.pose.scale / second.pose.scale
    return first.size != second.size and max(ratio, 1 / ratio) >= _SIZE_RATIO
