"""Pictures of files that training held back, with the words a model knows them by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kilonova.core.errors import DataError
from kilonova.data.pictures.placement import over_colour, place
from kilonova.data.pictures.sources import ParquetPictures, PictureSource

PATH = "image/emoji_captions.parquet"
# As recipes/canvas/flow.yaml calls them.
STYLE_WORDS: dict[str, str] = {
    "fluent-3d": "glossy 3D",
    "fluent-flat": "flat",
    "noto": "rounded",
    "openmoji": "outlined",
    "twemoji": "simple flat",
    "emojitwo": "bold flat",
}
CAPTION = "{style} emoji of {name}"
COLUMNS = ("style", "group", "name")


@dataclass(frozen=True, eq=False)
class Icon:
    """A real picture uint8 RGBA, the same as a training step might see it, its caption, and the values of `COLUMNS`.

    `picture` is as large as fits; `view` is at a random place and perhaps before a colour.
    """

    picture: np.ndarray
    view: np.ndarray
    caption: str
    labels: Mapping[str, str]


class IconSet:
    """Icons of a concept in a style that training never shows, in an order drawn by the seed, and icons it shows.

    There are at most `limit` of each, at `size` x `size` pixels. DataError for a folder without their file.
    """

    def __init__(self, root: str | Path, size: int, seed: int, limit: int) -> None:
        self.held_back = _icons(root, "eval", size, seed, limit)
        self.known = _icons(root, "train", size, seed, limit)


def on_white(picture: np.ndarray) -> np.ndarray:
    """A picture uint8 RGBA as it is answered: `[H, W, 3]`, before white."""
    return over_colour(picture, (255, 255, 255))[..., :3]


def _icons(root: str | Path, split: str, size: int, seed: int, limit: int) -> list[Icon]:
    source = PictureSource(
        name=f"emoji-{split}", path=PATH, where={"split": (split,)}, captions=(CAPTION,), words={"style": STYLE_WORDS}
    )
    pictures = ParquetPictures(source, root)
    fields = pictures.fields(0)
    if missing := [name for name in COLUMNS if name not in fields]:
        raise DataError(f"{Path(root) / PATH}: lacks the columns {', '.join(missing)}")
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(pictures))[:limit].tolist()
    return [_icon(pictures, index, size, generator) for index in order]


def _icon(pictures: ParquetPictures, index: int, size: int, generator: np.random.Generator) -> Icon:
    labels = {name: str(pictures.fields(index)[name]) for name in COLUMNS}
    view, _ = pictures.view(index, size, size, generator)
    caption = pictures.caption(index, generator)
    return Icon(place(pictures.picture(index), size, size), view, caption, labels)
