"""Pictures with words, from Parquet files."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from kilonova.core.errors import ConfigError, DataError
from kilonova.data.pictures.placement import over_colour, place
from kilonova.data.sources import resolve, row_text
from kilonova.data.world.chance import pick
from kilonova.data.world.colours import BACKGROUND_COLOURS
from kilonova.data.world.scene import Background
from kilonova.data.world.wording import background_words

# Of the pictures that have transparent parts, the share that is put before a colour, and how much that may differ from
# the one it is named after.
_COLOURED_SHARE = 0.35
_COLOUR_JITTER = 8


@dataclass(frozen=True, kw_only=True)
class PictureSource:
    """One collection of pictures of a recipe.

    `path` is a Parquet file below the recipe's data root, whose column `image_column` holds encoded pictures (PNG,
    WebP, JPEG). `where` keeps the rows in which each of its columns has one of the given values. `captions` are
    templates over the row's columns, as in `"{style} {name}"`, of which one is drawn for each use; `words` says, by
    column, what a value is called in them. Pictures are drawn from the sources in proportion to `weight` times their
    number. `origin` and `licence` go into the model card.
    """

    root_setting: ClassVar[str] = "pictures.root"

    name: str
    path: str
    image_column: str = "image"
    where: dict[str, tuple[str, ...]] = field(default_factory=dict)
    captions: tuple[str, ...] = ("{caption}",)
    words: dict[str, dict[str, str]] = field(default_factory=dict)
    weight: float = 1.0
    origin: str = ""
    licence: str = ""

    def __post_init__(self) -> None:
        if self.weight <= 0:
            raise ConfigError(f"source {self.name!r}: weight must be above 0")
        if not self.captions:
            raise ConfigError(f"source {self.name!r}: captions: at least one template is needed")


class ParquetPictures:
    """The pictures of a `PictureSource`, encoded in memory and decoded when they are asked for.

    Raises DataError for a file that is missing, not Parquet, or without a column that the source names.
    """

    def __init__(self, source: PictureSource, root: str | Path) -> None:
        self.source = source
        self._path = resolve(source, root)
        self._rows = _read(source, self._path)
        if not self._rows:
            raise DataError(f"source {source.name!r}: no row of {self._path} is as `where` asks")
        self.caption(0, np.random.default_rng(0))

    def __len__(self) -> int:
        return len(self._rows)

    def fields(self, index: int) -> Mapping[str, Any]:
        """The row's other columns."""
        return {name: value for name, value in self._rows[index].items() if name != self.source.image_column}

    def view(self, index: int, width: int, height: int, generator: np.random.Generator) -> tuple[np.ndarray, str]:
        """A picture as a training step sees it, uint8 RGBA `[height, width, 4]`, and a caption.

        It is at a random place and, some of the time, before a colour that the caption then names.
        """
        picture = place(self.picture(index), width, height, generator)
        caption = self.caption(index, generator)
        if generator.random() < _COLOURED_SHARE and picture[..., 3].min() < 255:
            background = Background("plain", pick(generator, list(BACKGROUND_COLOURS)))
            jitter = generator.integers(-_COLOUR_JITTER, _COLOUR_JITTER + 1, size=3)
            red, green, blue = np.clip(BACKGROUND_COLOURS[str(background.colour)] + jitter, 0, 255).tolist()
            picture = over_colour(picture, (red, green, blue))
            caption = f"{caption} {background_words(background, generator)}"
        return picture, caption

    def whole(self, index: int, width: int, height: int, generator: np.random.Generator) -> tuple[np.ndarray, str]:
        """The picture as it is, as large as fits, and a caption."""
        return place(self.picture(index), width, height), self.caption(index, generator)

    def picture(self, index: int) -> Image.Image:
        """The picture, in mode RGBA; DataError, which names the row, where it cannot be decoded."""
        try:
            with Image.open(io.BytesIO(self._rows[index][self.source.image_column])) as image:
                return image.convert("RGBA")
        except (OSError, TypeError, Image.DecompressionBombError) as error:
            raise DataError(f"{self._path}: row {index} of those taken is not a picture: {error}") from error

    def caption(self, index: int, generator: np.random.Generator) -> str:
        """What one of the templates, drawn by `generator`, makes of the row."""
        fields = dict(self.fields(index))
        for column, words in self.source.words.items():
            fields[column] = words.get(fields[column], fields[column])
        template = self.source.captions[generator.integers(len(self.source.captions))]
        try:
            return row_text(fields, template)
        except DataError as error:
            raise DataError(f"{self._path}: {error}") from error


def _read(source: PictureSource, path: Path) -> list[dict[str, Any]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ConfigError("pyarrow must be installed first: pip install 'kilonova[data]'") from error
    filters = [(column, "in", list(values)) for column, values in source.where.items()]
    try:
        columns = pyarrow.parquet.read_schema(path).names
        for name in (source.image_column, *source.where, *source.words):
            if name not in columns:
                raise DataError(f"source {source.name!r}: {path} has no column {name!r} (it has {', '.join(columns)})")
        return pyarrow.parquet.read_table(path, filters=filters or None).to_pylist()
    except pyarrow.ArrowException as error:
        raise DataError(f"{path}: not a readable Parquet file: {error}") from error
