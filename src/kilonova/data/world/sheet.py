"""Scenes side by side, each above its caption."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from kilonova.data.world.captions import long_caption
from kilonova.data.world.render import render
from kilonova.data.world.scene import Scene

_MARGIN = 12
_FONT_SIZE = 13
_LINES = 6


def contact_sheet(scenes: Sequence[Scene], size: int, columns: int = 6) -> Image.Image:
    """A picture of `scenes` at `size` x `size` pixels, in rows of `columns`, told at length under each."""
    font = ImageFont.load_default(_FONT_SIZE)
    step = (size + _MARGIN, size + _MARGIN + _LINES * (_FONT_SIZE + 3))
    columns = min(columns, len(scenes))
    rows = -(-len(scenes) // columns)
    sheet = Image.new("RGB", (columns * step[0] + _MARGIN, rows * step[1] + _MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    for index, scene in enumerate(scenes):
        left = _MARGIN + index % columns * step[0]
        top = _MARGIN + index // columns * step[1]
        sheet.paste(Image.fromarray(render(scene, size).image).convert("RGB"), (left, top))
        text = long_caption(scene, np.random.default_rng(index)).text
        draw.multiline_text((left, top + size + 4), _wrapped(text, font, size), fill="black", font=font, spacing=2)
    return sheet


def _wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    if len(lines) > _LINES:
        lines = [*lines[: _LINES - 1], f"{lines[_LINES - 1]} …"]
    return "\n".join(lines)
