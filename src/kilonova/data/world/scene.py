"""What is in a picture: things with their looks and poses, a background, and perhaps a word.

Positions are fractions of the frame, lengths are in units of its shorter side, so that a scene can be drawn at every
size and aspect ratio. All parts are frozen: a moving scene is a sequence of scenes with replaced poses.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kilonova.core.errors import DataError, nearest
from kilonova.data.world.colours import BACKGROUND_COLOURS, COLOURS
from kilonova.data.world.kinds import KINDS, TEXTURES

# Usual scale of each size class.
SIZES: dict[str, float] = {"small": 0.11, "medium": 0.17, "large": 0.26}
BACKGROUNDS: tuple[str, ...] = (
    "plain", "gradient", "checkered", "room", "meadow", "beach", "snow", "sunset", "night",
)  # fmt: skip
COLOURED_BACKGROUNDS: frozenset[str] = frozenset({"plain", "gradient", "checkered", "room"})
TEXT_PLACES: tuple[str, ...] = ("top", "center", "bottom")


def size_of(scale: float) -> str:
    """The size class to which a scale is nearest."""
    return "small" if scale < 0.14 else "medium" if scale < 0.21 else "large"


def _known(field: str, value: str, allowed: Iterable[str]) -> None:
    if value not in (allowed := tuple(allowed)):
        raise DataError(f"{field} is {value!r}; {nearest(value, allowed)}")


@dataclass(frozen=True)
class Pose:
    """Where a thing is: `x`, `y` of its centre, `scale` (half its longer side), `rotation` in degrees clockwise.

    `x` and `y` are fractions of the frame's width and height from the top left; for a thing with a parent they are the
    offset from the parent's centre. Offsets and `scale` are in units of the frame's shorter side.
    """

    x: float
    y: float
    scale: float
    rotation: float = 0.0


@dataclass(frozen=True)
class SceneObject:
    """One thing: what it is, how it looks, and where; `depth` grows towards the viewer.

    `parent` is the index of the thing that it stands on or lies in, whose place it follows, or None.
    Raises `DataError` for an unknown kind, colour, texture or size.
    """

    kind: str
    colour: str
    texture: str
    size: str
    pose: Pose
    depth: int = 0
    parent: int | None = None

    def __post_init__(self) -> None:
        _known("kind", self.kind, KINDS)
        _known("colour", self.colour, COLOURS)
        _known("texture", self.texture, TEXTURES)
        _known("size", self.size, SIZES)


@dataclass(frozen=True)
class Background:
    """What is behind: `colour` is None for a landscape; `horizon` is the fraction of the height where ground begins."""

    kind: str = "plain"
    colour: str | None = "white"
    horizon: float = 0.65

    def __post_init__(self) -> None:
        _known("background", self.kind, BACKGROUNDS)
        if self.kind in COLOURED_BACKGROUNDS:
            _known("background colour", str(self.colour), BACKGROUND_COLOURS)
        elif self.colour is not None:
            raise DataError(f"a {self.kind} background has colours of its own; colour must be None")


@dataclass(frozen=True)
class SceneText:
    """A short word drawn in front of all things; `height` of its letters is in units of the frame's shorter side."""

    word: str
    colour: str
    place: str = "bottom"
    height: float = 0.16

    def __post_init__(self) -> None:
        if not 1 <= len(self.word) <= 20 or not self.word.isprintable():
            raise DataError(f"text word is {self.word!r}; it must be 1 to 20 printable characters")
        _known("text colour", self.colour, COLOURS)
        _known("text place", self.place, TEXT_PLACES)


@dataclass(frozen=True)
class Scene:
    """All that a picture shows; `task` says what it was sampled for. Parents must come before their children."""

    objects: tuple[SceneObject, ...]
    background: Background = Background()
    text: SceneText | None = None
    task: str = "free"

    def __post_init__(self) -> None:
        for index, thing in enumerate(self.objects):
            if thing.parent is not None and not 0 <= thing.parent < index:
                raise DataError(f"objects[{index}].parent is {thing.parent}; it must be an index below {index}")
