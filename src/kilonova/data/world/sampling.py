"""Random scenes, each a function of its seed alone, for eight tasks from one thing to a crowd."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from kilonova.core.errors import DataError, nearest
from kilonova.data.world import geometry, placing
from kilonova.data.world.chance import Seed, generator, pick, shuffled, uniform, whole
from kilonova.data.world.colours import COLOURS
from kilonova.data.world.kinds import KINDS
from kilonova.data.world.looks import Looks, Split, choose_background
from kilonova.data.world.placing import Family
from kilonova.data.world.scene import Scene, SceneText

MAX_OBJECTS = 8
WORDS: tuple[str, ...] = (
    "APPLE", "BLUE", "BOOK", "CAFE", "CAT", "COOL", "DAY", "DREAM", "EAST", "ENJOY", "FISH", "FLY", "FUN", "GO",
    "GOOD", "GREEN", "HAPPY", "HELLO", "HI", "HOME", "HOPE", "JAZZ", "JOY", "JUMP", "KIND", "LIFE", "LOVE", "LUCKY",
    "MAGIC", "MAP", "MOON", "MUSIC", "NEW", "NEWS", "NICE", "NORTH", "OK", "OPEN", "PARK", "PARTY", "PEACE", "PLAY",
    "RED", "RUN", "SALE", "SEA", "SKY", "SMILE", "SOUTH", "STAR", "STOP", "SUN", "TAXI", "TEA", "TIME", "TOY", "VOTE",
    "WELCOME", "WEST", "WIN", "WOW", "YES", "ZERO", "ZOO",
)  # fmt: skip
_SPOTS = ((0.2, 0.32), (0.46, 0.54), (0.68, 0.8))


@dataclass(frozen=True)
class SceneConfig:
    """What to sample.

    `task` is one of `TASKS`, or None for a mixture. `min_objects` and `max_objects` (1 to 8) bound the tasks "counting"
    and "free". `overlap` lets a thing stand in front of another. `split` "train" never shows a withheld combination
    (see `held_out`), "held_out" shows one in every scene. Raises `DataError` for values outside of these.
    """

    task: str | None = None
    min_objects: int = 1
    max_objects: int = 5
    overlap: bool = False
    split: Split = "train"

    def __post_init__(self) -> None:
        if self.task is not None and self.task not in TASKS:
            raise DataError(f"task is {self.task!r}; {nearest(self.task, TASKS)}")
        if not 1 <= self.min_objects <= self.max_objects <= MAX_OBJECTS:
            raise DataError(
                f"min_objects, max_objects are {self.min_objects}, {self.max_objects}; they must be in order "
                f"and from 1 to {MAX_OBJECTS}"
            )
        if self.split not in ("train", "held_out"):
            raise DataError(f"split is {self.split!r}; known: train, held_out")


def sample_scene(seed: Seed, config: SceneConfig = SceneConfig()) -> Scene:
    """A scene that depends on `seed` (a number, or (seed, index)) and `config` only."""
    rng = generator(seed)
    task = config.task or pick(rng, _MIXTURE)
    scene = TASKS[task](rng, config)
    background = choose_background(rng, [(t.kind, t.colour, t.texture) for t in scene.objects], scene.text)
    return replace(scene, background=background, task=task)


def _single_object(rng: np.random.Generator, config: SceneConfig) -> Scene:
    size = pick(rng, ("medium", "large", "large"))
    family = placing.thing(rng, Looks(rng, config.split).draw(), size, growth=1.35 if size == "large" else 1.0)
    spread = 0.05 if size == "large" else 0.2
    spot = uniform(rng, 0.5 - spread, 0.5 + spread), uniform(rng, 0.5 - spread, 0.5 + spread)
    return Scene(placing.place_at([family], [spot]))


def _two_objects(rng: np.random.Generator, config: SceneConfig) -> Scene:
    looks = Looks(rng, config.split)
    families = [placing.thing(rng, looks.draw(), pick(rng, ("medium", "medium", "large"))) for _ in range(2)]
    return Scene(placing.scatter(rng, shuffled(rng, families)))


def _counting(rng: np.random.Generator, config: SceneConfig) -> Scene:
    count = whole(rng, config.min_objects, config.max_objects)
    looks = Looks(rng, config.split)
    look = looks.draw()
    size = "small" if count > 4 else pick(rng, ("small", "medium"))
    families = [placing.thing(rng, look, size) for _ in range(count)]
    if count < MAX_OBJECTS and rng.random() < 0.3:
        families.append(placing.thing(rng, looks.draw(), size))
    return Scene(placing.scatter(rng, families))


def _relations(rng: np.random.Generator, config: SceneConfig) -> Scene:
    """Two things in one of the relations, and sometimes a third apart from them."""
    known = [name for name in geometry.RELATIONS if config.overlap or name not in ("in front of", "behind")]
    relation = pick(rng, known)
    looks = Looks(rng, config.split)
    if relation in ("left of", "right of", "above", "below"):
        families = [placing.thing(rng, looks.draw(), pick(rng, ("medium", "large"))) for _ in range(2)]
        return Scene(placing.beside(rng, families[0], families[1], relation))
    together = {"on top of": _on_top, "inside": _inside}.get(relation, _in_front)(rng, looks)
    families = [together]
    if rng.random() < 0.4:
        families.append(placing.thing(rng, looks.draw(), "small"))
    return Scene(placing.scatter(rng, families))


def _on_top(rng: np.random.Generator, looks: Looks) -> Family:
    above = looks.draw(lambda kind: KINDS[kind].stands)
    below = looks.draw(lambda kind: KINDS[kind].top > 0, apart_from=above)
    child = placing.thing(rng, above, pick(rng, ("small", "medium")), upright=True)
    return placing.put_on(rng, child, placing.thing(rng, below, "large", upright=True))


def _inside(rng: np.random.Generator, looks: Looks) -> Family:
    inner = looks.draw(lambda kind: not KINDS[kind].holds)
    outer = looks.draw(lambda kind: KINDS[kind].holds, apart_from=inner, plain=True)
    return placing.put_in(rng, placing.thing(rng, inner, "small"), placing.thing(rng, outer, "large", growth=1.2))


def _in_front(rng: np.random.Generator, looks: Looks) -> Family:
    front = looks.draw()
    back = looks.draw(apart_from=front)
    child = placing.thing(rng, front, pick(rng, ("small", "medium")))
    return placing.put_before(rng, child, placing.thing(rng, back, "large"))


def _colour_binding(rng: np.random.Generator, config: SceneConfig) -> Scene:
    """Two or three plain things of different kinds and different colours."""
    looks = Looks(rng, config.split, plain=True, distinct_colours=True)
    families = [placing.thing(rng, looks.draw(), "medium") for _ in range(whole(rng, 2, 3))]
    return Scene(placing.scatter(rng, shuffled(rng, families)))


def _position(rng: np.random.Generator, config: SceneConfig) -> Scene:
    """One thing in one of the nine parts of the frame."""
    family = placing.thing(rng, Looks(rng, config.split).draw(), pick(rng, ("small", "medium")))
    return Scene(placing.place_at([family], [spot_in(rng, pick(rng, geometry.ROWS), pick(rng, geometry.COLUMNS))]))


def _text(rng: np.random.Generator, config: SceneConfig) -> Scene:
    """A word, with up to two things beside it."""
    looks = Looks(rng, config.split)
    families = [
        placing.thing(rng, looks.draw(), pick(rng, ("small", "medium")))
        for _ in range(whole(rng, int(config.split == "held_out"), 2))
    ]
    place = pick(rng, ("top", "bottom")) if families else "center"
    height = uniform(rng, 0.13, 0.17) if families else uniform(rng, 0.2, 0.3)
    word = SceneText(pick(rng, WORDS), pick(rng, list(COLOURS)), place, height)
    band = height + 0.1
    region = (0.0, band, 1.0, 1.0) if place == "top" else (0.0, 0.0, 1.0, 1.0 - band)
    return Scene(placing.scatter(rng, families, region), text=word)


def _free(rng: np.random.Generator, config: SceneConfig) -> Scene:
    """As many things as wanted, some of them alike, some standing on, lying in or standing before another."""
    count = whole(rng, config.min_objects, config.max_objects)
    looks = Looks(rng, config.split)
    families: list[Family] = []
    left = count
    while left:
        draw = rng.random()
        if left >= 2 and draw < 0.3:
            makers: list[Callable[[np.random.Generator, Looks], Family]] = [_on_top, _inside]
            family = pick(rng, makers + [_in_front] * config.overlap)(rng, looks)
            families.append(placing.shrunk(family, 0.85 if count > 3 else 1.0))
            left -= 2
        elif left >= 2 and draw < 0.5:
            look = looks.draw()
            alike = whole(rng, 2, min(3, left))
            families.extend(placing.thing(rng, look, "small" if count > 3 else "medium") for _ in range(alike))
            left -= alike
        else:
            families.append(placing.thing(rng, looks.draw(), _usual_size(rng, count)))
            left -= 1
    return Scene(placing.scatter(rng, sorted(families, key=lambda family: -family[0].pose.scale)))


def _usual_size(rng: np.random.Generator, count: int) -> str:
    return pick(rng, ("medium", "large") if count <= 2 else ("small", "medium", "medium") if count <= 4 else ("small",))


def spot_in(rng: np.random.Generator, row: str, column: str) -> tuple[float, float]:
    """A random (x, y) well within one of the nine parts of the frame."""
    across, down = _SPOTS[geometry.COLUMNS.index(column)], _SPOTS[geometry.ROWS.index(row)]
    return uniform(rng, *across), uniform(rng, *down)


TASKS: dict[str, Callable[[np.random.Generator, SceneConfig], Scene]] = {
    "single_object": _single_object,
    "two_objects": _two_objects,
    "counting": _counting,
    "relations": _relations,
    "colour_binding": _colour_binding,
    "position": _position,
    "text": _text,
    "free": _free,
}
_MIXTURE: tuple[str, ...] = (*TASKS, "free", "free")
