"""What a training step sees of one picture: the picture, its words, and all else it is to be made from."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from kilonova.core.errors import ConfigError
from kilonova.data.pictures.batches import Pictures
from kilonova.data.pictures.dolls import DollPictures
from kilonova.data.pictures.edges import canny_edges
from kilonova.data.pictures.masks import frame_mask, grown, loose_mask, random_mask
from kilonova.data.pictures.palette import dominant_colours
from kilonova.data.pictures.placement import over_colour
from kilonova.data.pictures.regions import paint_regions, region_labels
from kilonova.data.pictures.sources import ParquetPictures
from kilonova.data.pictures.things import (
    Thing,
    another_scene,
    picture_before_background,
    region_numbers,
    thing_of_scene,
)
from kilonova.data.pictures.variation import varied, warped
from kilonova.data.pictures.world import WorldPictures
from kilonova.data.world.chance import pick
from kilonova.data.world.dolls_garments import GARMENTS
from kilonova.data.world.dolls_sampling import garment_words
from kilonova.data.world.render import render
from kilonova.data.world.wording import with_article

_MAX_COLOURS = 10
# Of the pictures with references or a garment, the share that is told nothing in words.
_WORDLESS_SHARE = 0.4
# Of the pictures from files with words alone, the share that is put before a background of the world.
_BACKGROUND_SHARE = 0.15
_NUMBERS_OF_REFERENCES = (1, 1, 1, 2, 3)
_MIN_SIMILARITY = 0.2
_WHITE = (255, 255, 255)


@dataclass(frozen=True, kw_only=True)
class ConditionsSection:
    """The share of pictures that are trained with each condition; the rest have words alone.

    A picture has at most one of `inpainting` (also outpainting and removal), `control` (edges or regions) and
    `references` (pictures like it), and by itself a `palette` of 1 to 10 of its colours. `try_on` is the share of the
    dolls that are shown one of their garments alone, with its place to fill.
    """

    inpainting: float = 0.0
    control: float = 0.0
    references: float = 0.0
    palette: float = 0.0
    try_on: float = 0.0

    def __post_init__(self) -> None:
        for name in ("inpainting", "control", "references", "palette", "try_on"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"conditions.{name}: {getattr(self, name)} is not between 0 and 1")
        if self.inpainting + self.control + self.references > 1:
            raise ConfigError("conditions: inpainting, control and references come to more than 1")

    @property
    def any(self) -> bool:
        """Whether there is any condition beside words."""
        return any((self.inpainting, self.control, self.references, self.palette, self.try_on))


@dataclass(frozen=True, kw_only=True, eq=False)
class Example:
    """A `picture` uint8 `[H, W, 4]` to learn, and what is given for it.

    `mask` bool `[H, W]` is what is to be made anew; the rest of `picture` is given. `control` uint8 `[H, W, 3]` agrees
    with the picture as far as `control_strength` says, and so do `references`, uint8 `[H, W, 4]`, as far as
    `similarity` does. `palette` are colours uint8 `[N, 3]`. A caption that `needs_caption` is never left out: without
    words, the thing under a mask of its shape would be removed.
    """

    picture: np.ndarray
    caption: str
    needs_caption: bool = False
    mask: np.ndarray | None = None
    control: np.ndarray | None = None
    control_type: Literal["NONE", "CANNY_EDGE", "SEGMENTATION"] = "NONE"
    control_strength: float = 0.0
    references: tuple[np.ndarray, ...] = ()
    similarity: float = 0.0
    palette: np.ndarray = field(default_factory=lambda: np.zeros((0, 3), np.uint8))


def draw_example(
    pictures: Pictures,
    index: int,
    size: tuple[int, int],
    conditions: ConditionsSection,
    generator: np.random.Generator,
) -> Example:
    """A picture of a source at `size` (width, height), with conditions drawn by `generator`.

    Without any condition it is the source's own view.
    """
    if not conditions.any:
        picture, caption = pictures.view(index, *size, generator)
        return Example(picture=picture, caption=caption)
    with_palette = generator.random() < conditions.palette
    example = _drawn(pictures, index, size, conditions, generator)
    if not with_palette:
        return example
    colours = dominant_colours(example.picture, int(generator.integers(1, _MAX_COLOURS + 1)))
    return replace(example, palette=colours)


def _drawn(
    pictures: Pictures,
    index: int,
    size: tuple[int, int],
    conditions: ConditionsSection,
    generator: np.random.Generator,
) -> Example:
    share = generator.random()
    if isinstance(pictures, DollPictures) and generator.random() < conditions.try_on:
        return _try_on(pictures, index, size, generator)
    if share < conditions.inpainting:
        return _inpainting(pictures, index, size, generator)
    share -= conditions.inpainting
    if share < conditions.control:
        return _control(pictures, index, size, generator)
    if share - conditions.control < conditions.references:
        return _references(pictures, index, size, generator)
    if isinstance(pictures, ParquetPictures) and generator.random() < _BACKGROUND_SHARE:
        thing = picture_before_background(pictures, index, *size, generator)
        if thing is not None:
            return Example(picture=thing.picture, caption=thing.caption)
    picture, caption = pictures.view(index, *size, generator)
    return Example(picture=picture, caption=caption)


def _try_on(pictures: DollPictures, index: int, size: tuple[int, int], generator: np.random.Generator) -> Example:
    found = pictures.try_on(index, *size, generator)
    kind = GARMENTS[found.worn.kind]
    names = (kind.name if kind.plural else with_article(kind.name), garment_words(found.worn, generator))
    caption = "" if generator.random() < _WORDLESS_SHARE else pick(generator, names)
    return Example(picture=found.picture, caption=caption, mask=found.mask, references=(found.garment,), similarity=1.0)


def _inpainting(pictures: Pictures, index: int, size: tuple[int, int], generator: np.random.Generator) -> Example:
    """A random part, or a frame around one; where a thing is known, that thing, what surrounds it, or its removal."""
    thing = _thing(pictures, index, size, generator) if generator.random() < 0.6 else None
    if thing is None:
        picture, caption = pictures.view(index, *size, generator)
        mask = random_mask(*size, generator) if generator.random() < 0.6 else frame_mask(*size, generator)
        return Example(picture=over_colour(picture, _WHITE), caption=caption, mask=mask)
    task = generator.integers(3)
    if task == 0:
        return Example(picture=thing.without, caption="", mask=loose_mask(thing.mask, generator))
    if task == 1:
        caption = thing.name if generator.random() < 0.5 else thing.caption
        return Example(
            picture=thing.picture, caption=caption, needs_caption=True, mask=loose_mask(thing.mask, generator)
        )
    kept = grown(thing.mask, 0.02) if generator.random() < 0.5 else thing.mask
    return Example(picture=thing.picture, caption=thing.caption, mask=~kept)


def _thing(pictures: Pictures, index: int, size: tuple[int, int], generator: np.random.Generator) -> Thing | None:
    match pictures:
        case WorldPictures():
            return thing_of_scene(pictures, index, *size, generator)
        case ParquetPictures():
            return picture_before_background(pictures, index, *size, generator)
        case DollPictures():
            return None


def _control(pictures: Pictures, index: int, size: tuple[int, int], generator: np.random.Generator) -> Example:
    """Edges or regions of the picture as it would be bent by a hand that errs, by as much as strength lacks of 1."""
    picture, caption = pictures.view(index, *size, generator)
    seen = over_colour(picture, _WHITE)[..., :3]
    strength = float(generator.random())
    if generator.random() < 0.5:
        control = canny_edges(warped(seen, 1 - strength, generator))
        return Example(
            picture=picture, caption=caption, control=control, control_type="CANNY_EDGE", control_strength=strength
        )
    labels = _labels(pictures, index, size, seen, generator)
    control = paint_regions(warped(labels[..., None], 1 - strength, generator)[..., 0])
    return Example(
        picture=picture, caption=caption, control=control, control_type="SEGMENTATION", control_strength=strength
    )


def _labels(
    pictures: Pictures, index: int, size: tuple[int, int], seen: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """Regions of a picture: half of the time those that are known, if they are, else those that can be seen."""
    if generator.random() < 0.5:
        match pictures:
            case WorldPictures():
                return region_numbers(render(pictures.scene(index), size))
            case DollPictures():
                drawn = pictures.rendered(index, *size)
                if np.array_equal(drawn.image[..., :3], seen):
                    return drawn.labels
    return region_labels(seen)


def _references(pictures: Pictures, index: int, size: tuple[int, int], generator: np.random.Generator) -> Example:
    """Pictures that differ from the one to learn by as much as similarity lacks of 1."""
    picture, caption = pictures.view(index, *size, generator)
    similarity = float(generator.uniform(_MIN_SIMILARITY, 1))
    amount = 1 - similarity
    references = []
    for _ in range(_NUMBERS_OF_REFERENCES[generator.integers(len(_NUMBERS_OF_REFERENCES))]):
        like = picture
        if isinstance(pictures, WorldPictures):
            like = render(another_scene(pictures.scene(index), amount, generator), size).image
        references.append(varied(over_colour(like, _WHITE), amount, generator))
    if generator.random() < _WORDLESS_SHARE:
        caption = ""
    return Example(picture=picture, caption=caption, references=tuple(references), similarity=similarity)
