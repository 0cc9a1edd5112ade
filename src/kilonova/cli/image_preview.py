"""Pictures inside a terminal, by the best way that it knows."""

from __future__ import annotations

import base64
import io
import os
import select
import sys
from collections.abc import Mapping
from typing import Literal

from PIL import Image

Protocol = Literal["kitty", "iterm2", "sixel", "blocks"]

_KITTY_CHUNK = 4096
_ANSWER_SECONDS = 0.2
_SIXEL_ATTRIBUTE = "4"
_MAX_COLUMNS = 64
# Of a character cell, as no terminal tells it in the same way.
_CELL_WIDTH, _CELL_HEIGHT = 8, 16


def detect_protocol(environment: Mapping[str, str] = os.environ) -> Protocol:
    """What the terminal on standard output shows pictures by.

    Kitty's and iTerm2's protocols are known by the environment; a terminal with sixels says so when it is asked. Inside
    tmux and screen, and everywhere else, there are blocks of two pixels a character.
    """
    term, program = environment.get("TERM", ""), environment.get("TERM_PROGRAM", "")
    if term.startswith(("tmux", "screen")) or "TMUX" in environment:
        return "blocks"
    if "kitty" in term or "KITTY_WINDOW_ID" in environment or program.lower() in ("ghostty", "wezterm"):
        return "kitty"
    if program == "iTerm.app" or environment.get("LC_TERMINAL") == "iTerm2":
        return "iterm2"
    return "sixel" if _SIXEL_ATTRIBUTE in _device_attributes() else "blocks"


def render(image: Image.Image, protocol: Protocol, columns: int) -> str:
    """The characters that show `image`, on white, in at most `columns` and 64 columns and 32 lines, with a line end."""
    columns = max(1, min(columns, _MAX_COLUMNS, round(_MAX_COLUMNS * image.width / image.height)))
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    image = image.convert("RGB")
    if protocol == "blocks":
        return _blocks(_fit(image, columns))
    if protocol == "sixel":
        return sixel(_fit(image, columns * _CELL_WIDTH)) + "\n"
    rows = max(1, round(columns * _CELL_WIDTH / _CELL_HEIGHT * image.height / image.width))
    file = io.BytesIO()
    image.save(file, "PNG")
    data = base64.standard_b64encode(file.getvalue()).decode()
    if protocol == "iterm2":
        return f"\x1b]1337;File=inline=1;width={columns};height={rows};preserveAspectRatio=1:{data}\a\n"
    parts = [data[first : first + _KITTY_CHUNK] for first in range(0, len(data), _KITTY_CHUNK)]
    written = []
    for number, part in enumerate(parts):
        keys = f"a=T,f=100,c={columns},r={rows}," if number == 0 else ""
        written.append(f"\x1b_G{keys}m={int(number < len(parts) - 1)};{part}\x1b\\")
    return "".join(written) + "\n"


def sixel(image: Image.Image) -> str:
    """`image` as DEC's sixels: bands of six rows, painted colour by colour, in at most 256 colours."""
    indexed = image.quantize(256)
    palette = indexed.getpalette() or []
    width, height = image.size
    pixels = indexed.tobytes()
    used = sorted(set(pixels))
    written = ["\x1bPq", f'"1;1;{width};{height}']
    for colour in used:
        red, green, blue = (round(value * 100 / 255) for value in palette[3 * colour : 3 * colour + 3])
        written.append(f"#{colour};2;{red};{green};{blue}")
    for top in range(0, height, 6):
        rows = [pixels[row * width : (row + 1) * width] for row in range(top, min(top + 6, height))]
        for colour in sorted(set(b"".join(rows))):
            columns = [sum((row[x] == colour) << bit for bit, row in enumerate(rows)) for x in range(width)]
            written.append(f"#{colour}{_run_lengths(columns)}$")
        written.append("-")
    return "".join(written) + "\x1b\\"


def _run_lengths(columns: list[int]) -> str:
    written = []
    start = 0
    for end in range(1, len(columns) + 1):
        if end == len(columns) or columns[end] != columns[start]:
            character, count = chr(63 + columns[start]), end - start
            written.append(f"!{count}{character}" if count > 3 else character * count)
            start = end
    return "".join(written)


def _blocks(image: Image.Image) -> str:
    """Half blocks in true colour: the upper pixel in front, the lower one behind."""
    if image.height % 2:
        image = (
            image.crop((0, 0, image.width, image.height - 1)) if image.height > 1 else image.resize((image.width, 2))
        )
    pixels = image.tobytes()
    lines = []
    for top in range(0, image.height, 2):
        line = []
        for x in range(image.width):
            upper, lower = (3 * ((top + row) * image.width + x) for row in (0, 1))
            front, back = (";".join(map(str, pixels[place : place + 3])) for place in (upper, lower))
            line.append(f"\x1b[38;2;{front};48;2;{back}m▀")
        lines.append("".join(line) + "\x1b[0m\n")
    return "".join(lines)


def _fit(image: Image.Image, width: int) -> Image.Image:
    return image.resize((width, max(1, round(image.height * width / image.width))), Image.Resampling.LANCZOS)


def _device_attributes() -> list[str]:
    """What the terminal says when asked what it is (DA1); nothing if there is none, or it stays silent."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return []
    try:
        import termios
        import tty
    except ImportError:
        return []
    file = sys.stdin.fileno()
    before = termios.tcgetattr(file)
    answer = b""
    try:
        tty.setcbreak(file)
        sys.stdout.write("\x1b[c")
        sys.stdout.flush()
        while not answer.endswith(b"c") and select.select([file], [], [], _ANSWER_SECONDS)[0]:
            answer += os.read(file, 64)
    finally:
        termios.tcsetattr(file, termios.TCSADRAIN, before)
    return answer.decode("ascii", "replace").removeprefix("\x1b[?").removesuffix("c").split(";")
