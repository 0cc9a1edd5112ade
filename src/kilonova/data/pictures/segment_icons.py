"""Pictures with transparent parts, put before grounds of all sorts: what is in front, and what it is called."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from kilonova.data.pictures.placement import place
from kilonova.data.pictures.segments import Form, SegmentSample, asked, mentions
from kilonova.data.pictures.sources import ParquetPictures
from kilonova.data.sources import row_text
from kilonova.data.world.backgrounds import paint
from kilonova.data.world.chance import pick, shuffled, uniform, whole
from kilonova.data.world.colours import BACKGROUND_COLOURS
from kilonova.data.world.scene import BACKGROUNDS, COLOURED_BACKGROUNDS, Background

_SINGLE_SHARE = 0.6
_MAX_ICONS = 4
_MAX_ABSENT = 4
# The first name of a picture is asked for so often, any of the others else.
_FIRST_NAME_SHARE = 0.7
_SOLID = 0.5


class IconSegments:
    """The pictures of a `ParquetPictures`, one or up to four of them before a colour, a gradient, clouds or a drawn
    ground.

    What its source's captions make of a row, parted at commas, are the names of its picture, the first one first.
    Those with any of `held_out_names` are never used.
    """

    def __init__(self, pictures: ParquetPictures, held_out_names: Sequence[str] = ()) -> None:
        self.name = pictures.source.name
        self.weight = pictures.source.weight
        self._pictures = pictures
        self._held_out_names = tuple(held_out_names)

    def __len__(self) -> int:
        return len(self._pictures)

    def sample(
        self, index: int, width: int, height: int, generator: np.random.Generator, form: Form | None = None
    ) -> SegmentSample:
        """As `Segments`; in evaluation there is one picture alone."""
        alone = form is not None or generator.random() < _SINGLE_SHARE
        rows = [index]
        if not alone:
            others = generator.integers(len(self), size=whole(generator, 1, _MAX_ICONS - 1)).tolist()
            rows = list(dict.fromkeys([index, *others]))
        layers = self._layers(rows, width, height, generator)
        canvas = ground(width, height, generator)
        alpha = np.zeros((height, width), np.float32)
        shares: list[np.ndarray] = []
        for layer in layers:
            cover = layer[..., 3].astype(np.float32) / 255
            canvas += cover[..., None] * (layer[..., :3] - canvas)
            shares = [share * (1 - cover) for share in shares] + [cover]
            alpha += cover * (1 - alpha)
        masks = [share >= _SOLID for share in shares]
        texts = self._texts(rows, masks, alpha, generator, form)
        return asked(np.rint(canvas).clip(0, 255).astype(np.uint8), alpha, masks, texts)

    def names(self, index: int) -> list[str]:
        """What the picture is called, without the names that are held out; perhaps nothing."""
        fields = self._pictures.fields(index)
        texts = (row_text(dict(fields), template) for template in self._pictures.source.captions)
        parts = (part.strip() for text in texts for part in text.split(","))
        return [part for part in dict.fromkeys(parts) if part and not mentions(part, self._held_out_names)]

    def _layers(self, rows: Sequence[int], width: int, height: int, generator: np.random.Generator) -> list[np.ndarray]:
        """Each picture on a canvas of its own, RGBA; several are in quarters of it, reaching a little beyond them."""
        if len(rows) == 1:
            return [place(self._pictures.picture(rows[0]), width, height, generator)]
        quarters = shuffled(generator, [(x, y) for x in (0, 1) for y in (0, 1)])
        side = min(width, height) // 2
        layers = []
        for row, (column, line) in zip(rows, quarters, strict=False):
            picture = place(self._pictures.picture(row), *(round(side * uniform(generator, 0.6, 1.15)),) * 2)
            x, y = (
                round((along + uniform(generator, 0.42, 0.58)) * length / 2 - len(picture) / 2)
                for along, length in ((column, width), (line, height))
            )
            canvas = Image.new("RGBA", (width, height), (0, 0, 0, 0))
            canvas.paste(Image.fromarray(picture), (x, y))
            layers.append(np.asarray(canvas))
        return layers

    def _texts(
        self,
        rows: Sequence[int],
        masks: list[np.ndarray],
        alpha: np.ndarray,
        generator: np.random.Generator,
        form: Form | None,
    ) -> dict[str, list[int]]:
        names = [self.names(row) for row in rows]
        chosen = []
        for own in filter(None, names):
            first = form is not None or generator.random() < _FIRST_NAME_SHARE
            chosen.append(own[0] if first else pick(generator, own))
        if form == "names" or (form is None and generator.random() < 0.7):
            for row in generator.integers(len(self), size=whole(generator, 1, _MAX_ABSENT)).tolist():
                chosen.extend(self.names(row)[:1])
        texts = {}
        for name in shuffled(generator, list(dict.fromkeys(chosen))):
            article = "the " if form is None and generator.random() < 0.4 else ""
            texts[article + name] = [number for number, own in enumerate(names) if name in own]
        if form is None and generator.random() < 0.2:
            texts["background"] = [len(masks)]
            masks.append(alpha < _SOLID)
        return texts


def ground(width: int, height: int, generator: np.random.Generator) -> np.ndarray:
    """Something to stand before: a colour, a gradient, clouds of colours or a drawn ground; float32 `[H, W, 3]`."""
    sort = pick(generator, ("colour", "gradient", "clouds", "drawn", "drawn"))
    if sort == "drawn":
        kind = pick(generator, BACKGROUNDS)
        colour = pick(generator, list(BACKGROUND_COLOURS)) if kind in COLOURED_BACKGROUNDS else None
        return paint(Background(kind, colour, uniform(generator, 0.5, 0.8)), width, height)[0].copy()
    grid = {"colour": (1, 1), "gradient": pick(generator, ((1, 2), (2, 1), (2, 2))), "clouds": (6, 6)}[sort]
    colours = generator.integers(256, size=(*grid, 3)).astype(np.uint8)
    if sort == "colour" or generator.random() < 0.3:
        colours[:] = pick(generator, ((255, 255, 255), tuple(colours[0, 0].tolist())))
    smooth = Image.fromarray(colours).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(smooth).astype(np.float32)
