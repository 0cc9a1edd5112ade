"""Small Parquet files of drawn pictures."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow
import pyarrow.parquet
from PIL import Image, ImageDraw

COLOURS = {"red": (220, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 220)}


def encoded(colour: tuple[int, int, int], size: tuple[int, int] = (32, 32)) -> bytes:
    """A disc of `colour` on a transparent ground, as PNG."""
    image = Image.new("RGBA", size, (0, 0, 0, 0))
    ImageDraw.Draw(image).ellipse((4, 4, size[0] - 5, size[1] - 5), fill=(*colour, 255))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def write_discs(path: Path) -> Path:
    """Three colours in two styles, one row of them held back."""
    rows = [
        {
            "image": encoded(rgb),
            "name": name,
            "style": style,
            "group": "shapes",
            "keywords": "round, disc",
            "split": "eval" if (name, style) == ("blue", "plain") else "train",
        }
        for style in ("plain", "flat-3d")
        for name, rgb in COLOURS.items()
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path
