"""Pictures in which it is known where one thing is, and what is behind it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from kilonova.data.pictures.placement import place
from kilonova.data.pictures.sources import ParquetPictures
from kilonova.data.pictures.world import WorldPictures
from kilonova.data.world.backgrounds import paint
from kilonova.data.world.chance import pick, uniform
from kilonova.data.world.colours import BACKGROUND_COLOURS
from kilonova.data.world.describe import describe
from kilonova.data.world.render import Rendered, render
from kilonova.data.world.scene import BACKGROUNDS, COLOURED_BACKGROUNDS, Background, Pose, Scene, SceneObject
from kilonova.data.world.wording import background_words, with_article

_LEAST_SEEN = 0.005
# Of the frame, at an amount of 1.
_JITTER = 0.12


@dataclass(frozen=True, eq=False)
class Thing:
    """A `picture` and what it shows `without` the thing, uint8 `[H, W, 4]`, opaque; where the thing is seen, `mask`
    bool `[H, W]`; the whole picture's `caption`, and `name`, words for the thing alone."""

    picture: np.ndarray
    without: np.ndarray
    mask: np.ndarray
    caption: str
    name: str


def picture_before_background(
    pictures: ParquetPictures, index: int, width: int, height: int, generator: np.random.Generator
) -> Thing | None:
    """A picture with transparent parts, placed before a background of the world; None if it has none."""
    placed = place(pictures.picture(index), width, height, generator)
    alpha = placed[..., 3:].astype(np.float32) / 255
    mask = placed[..., 3] >= 128
    if not _LEAST_SEEN < mask.mean() < 0.95:
        return None
    kind = pick(generator, BACKGROUNDS)
    colour = pick(generator, list(BACKGROUND_COLOURS)) if kind in COLOURED_BACKGROUNDS else None
    background = Background(kind, colour, uniform(generator, 0.54, 0.7))
    backdrop, _ = paint(background, width, height)
    caption = pictures.caption(index, generator)
    return Thing(
        picture=_opaque(placed[..., :3] * alpha + backdrop * (1 - alpha)),
        without=_opaque(backdrop),
        mask=mask,
        caption=f"{caption} {background_words(background, generator)}",
        name=caption,
    )


def thing_of_scene(
    pictures: WorldPictures, index: int, width: int, height: int, generator: np.random.Generator
) -> Thing | None:
    """A scene and one of its things on which no other stands; None if there is none that can be seen well."""
    scene = pictures.scene(index)
    parents = {thing.parent for thing in scene.objects}
    drawn = render(scene, (width, height))
    fitting = [
        number
        for number in range(len(scene.objects))
        if number not in parents and drawn.masks[number].mean() > _LEAST_SEEN
    ]
    if not fitting:
        return None
    chosen = pick(generator, fitting)
    thing = scene.objects[chosen]
    return Thing(
        picture=drawn.image,
        without=render(without(scene, chosen), (width, height)).image,
        mask=drawn.masks[chosen],
        caption=pictures.tell(scene, generator),
        name=with_article(describe(thing, *_told(thing)).words(generator)),
    )


def _told(thing: SceneObject) -> tuple[str, ...]:
    return ("kind", "colour") if thing.texture == "plain" else ("kind", "colour", "texture")


def without(scene: Scene, removed: int) -> Scene:
    """The scene without one of its things, which has no children."""
    kept = [number for number in range(len(scene.objects)) if number != removed]
    renumbered = {old: new for new, old in enumerate(kept)}

    def moved(thing: SceneObject) -> SceneObject:
        return replace(thing, parent=None if thing.parent is None else renumbered[thing.parent])

    return replace(scene, objects=tuple(moved(scene.objects[number]) for number in kept))


def another_scene(scene: Scene, amount: float, generator: np.random.Generator) -> Scene:
    """A scene of the same description: things without parents stand a little elsewhere, the more the larger `amount`
    in [0, 1], and all are larger or smaller by the same share."""
    growth = 1 + amount * 0.2 * generator.uniform(-1, 1)

    def moved(thing: SceneObject) -> SceneObject:
        pose = thing.pose
        if thing.parent is not None:
            return replace(thing, pose=replace(pose, x=pose.x * growth, y=pose.y * growth, scale=pose.scale * growth))
        x, y = (np.array([pose.x, pose.y]) + amount * _JITTER * generator.uniform(-1, 1, size=2)).clip(0.05, 0.95)
        turn = pose.rotation + amount * 10 * generator.uniform(-1, 1)
        return replace(thing, pose=Pose(float(x), float(y), pose.scale * growth, turn))

    return replace(scene, objects=tuple(moved(thing) for thing in scene.objects))


def region_numbers(drawn: Rendered) -> np.ndarray:
    """The background's parts and each thing of a scene as regions of their own, int64 `[H, W]`."""
    labels = drawn.semantic.astype(np.int64)
    for number, mask in enumerate(drawn.masks):
        labels[mask] = 1000 + number
    return labels


def _opaque(colours: np.ndarray) -> np.ndarray:
    picture = np.clip(np.rint(colours), 0, 255).astype(np.uint8)
    return np.concatenate([picture, np.full_like(picture[..., :1], 255)], axis=-1)
