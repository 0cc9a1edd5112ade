"""The pictures of an evaluation, kept for a person to look at."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from kilonova.core.files import write_atomic

_MARGIN = 12
_FONT_SIZE = 13
_LINE = _FONT_SIZE + 3
_LINES = 4
_MAX_ON_SHEET = 120


class Gallery:
    """Pictures with a label each, by part."""

    def __init__(self) -> None:
        self._parts: dict[str, list[tuple[str, np.ndarray]]] = defaultdict(list)

    def add(self, part: str, label: str, picture: np.ndarray) -> None:
        """Keep a picture uint8 `[H, W, 3 or 4]`."""
        self._parts[part].append((label, picture))

    def write(self, folder: Path) -> None:
        """A folder of pictures for each part, and a sheet of the first 120 of them beside it."""
        for part, entries in self._parts.items():
            for number, (_, picture) in enumerate(entries):
                save_png(Image.fromarray(picture), folder / part / f"{number:04}.png")
            save_png(sheet(entries[:_MAX_ON_SHEET]), folder / f"{part}.png")


def sheet(entries: Sequence[tuple[str, np.ndarray]], columns: int = 8) -> Image.Image:
    """Pictures in rows of `columns`, in cells as large as the largest of them, each above its label."""
    font = ImageFont.load_default(_FONT_SIZE)
    width = max(picture.shape[1] for _, picture in entries)
    height = max(picture.shape[0] for _, picture in entries)
    step = (width + _MARGIN, height + _MARGIN + _LINES * _LINE)
    columns = min(columns, len(entries))
    rows = -(-len(entries) // columns)
    result = Image.new("RGB", (columns * step[0] + _MARGIN, rows * step[1] + _MARGIN), "white")
    draw = ImageDraw.Draw(result)
    for number, (label, picture) in enumerate(entries):
        left, top = _MARGIN + number % columns * step[0], _MARGIN + number // columns * step[1]
        paste(result, picture, left, top)
        lines = wrapped(label, font, width, _LINES)
        draw.multiline_text((left, top + picture.shape[0] + 4), lines, fill="#333", font=font, spacing=2)
    return result


def paste(sheet: Image.Image, picture: np.ndarray, left: int, top: int, square: int = 8) -> None:
    """Put a picture uint8 `[H, W, 3 or 4]` onto a sheet, what is transparent before a pale chequered ground."""
    image = Image.fromarray(picture)
    if image.mode == "RGBA":
        rows, columns = (np.arange(side) // square for side in picture.shape[:2])
        odd = (rows[:, None] + columns) % 2 == 1
        ground = np.where(odd[..., None], np.uint8(226), np.uint8(250)).repeat(3, axis=-1)
        image = Image.alpha_composite(Image.fromarray(ground).convert("RGBA"), image).convert("RGB")
    sheet.paste(image, (left, top))


def wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float, max_lines: int) -> str:
    """Words in lines of at most `width` pixels, cut after `max_lines`."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if not lines[-1] or font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    if len(lines) > max_lines:
        lines = [*lines[: max_lines - 1], f"{lines[max_lines - 1]} …"]
    return "\n".join(lines)


def save_png(image: Image.Image, path: Path) -> None:
    """Write a picture as PNG, whole or not at all."""
    file = io.BytesIO()
    image.save(file, "PNG")
    write_atomic(path, file.getvalue())
