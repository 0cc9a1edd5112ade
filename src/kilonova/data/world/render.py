"""Draws a scene at any size, with exact masks and boxes from the same outlines."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from kilonova.core.errors import DataError
from kilonova.data.world import raster
from kilonova.data.world.backgrounds import REGIONS, paint
from kilonova.data.world.colours import ACCENTS, COLOURS, accent, contour, mix, shade, tint
from kilonova.data.world.kinds import KINDS
from kilonova.data.world.scene import Scene, SceneText

SEMANTIC_CLASSES: tuple[str, ...] = (*REGIONS, *KINDS, "text")
_KIND_CLASS = {name: len(REGIONS) + index for index, name in enumerate(KINDS)}
_SHADOW_OFFSET = (0.008, 0.022)
_SHADOW_BLUR = 0.016
_SHADOW_STRENGTH = 0.3
_TEXT_MARGIN = 0.04


@dataclass(frozen=True, eq=False)
class Rendered:
    """A picture and its ground truth; `N` things in the order of `scene.objects`.

    `image` uint8 `[H, W, 4]`, RGBA, not premultiplied. `masks` bool `[N, H, W]`, the visible part of each thing; no two
    overlap. `boxes` float32 `[N, 4]`, (left, top, right, bottom) in pixels of each whole thing, covered parts included.
    `semantic` int16 `[H, W]`, indices into `SEMANTIC_CLASSES`. `text_mask` and `foreground` bool `[H, W]`; foreground
    is every thing and the text, which on a transparent background is where alpha is at least 128.
    """

    image: np.ndarray
    masks: np.ndarray
    boxes: np.ndarray
    semantic: np.ndarray
    text_mask: np.ndarray
    foreground: np.ndarray


@dataclass(frozen=True, eq=False)
class _Layer:
    """One premultiplied thing: colour float32 `[h, w, 3]` in 0 to 255, coverage float32 `[h, w]`, and its corner."""

    x: int
    y: int
    colour: np.ndarray
    coverage: np.ndarray


def render(
    scene: Scene, size: int | tuple[int, int], *, background: Literal["scene", "transparent"] = "scene"
) -> Rendered:
    """The picture of `scene` at `size`, (width, height) in pixels or the side of a square.

    A transparent picture has neither background nor shadows. Raises `DataError` for a side under 8 pixels.
    """
    width, height = (size, size) if isinstance(size, int) else size
    if min(width, height) < 8:
        raise DataError(f"size is {width}x{height}; each side must be at least 8 pixels")
    if background not in ("scene", "transparent"):
        raise DataError(f"background is {background!r}; known: scene, transparent")
    short = min(width, height)
    factor = 4 if short <= 192 else 3 if short <= 384 else 2
    canvas = np.zeros((height, width, 4), np.float32)
    regions = np.zeros((height, width), np.int16)
    if background == "scene":
        canvas[..., :3], regions = paint(scene.background, width, height)
        canvas[..., 3] = 1
    centres = raster.centres(scene, width, height)
    order = sorted(range(len(scene.objects)), key=lambda index: scene.objects[index].depth)
    layers = [_layer(scene, index, centres[index], short, factor) for index in order]
    if scene.text is not None:
        layers.append(_text_layer(scene.text, width, height, factor))
    shares = np.zeros((len(layers), height, width), np.float32)
    for position, layer in enumerate(layers):
        if background == "scene" and position < len(order):
            _cast_shadow(canvas, layer, short)
        _compose(canvas, shares[: position + 1], layer)

    foreground = shares.sum(0) >= 0.5
    owner = np.where(foreground, shares.argmax(0) if layers else 0, -1)
    masks = np.zeros((len(order), height, width), bool)
    semantic = regions.copy()
    for position, index in enumerate(order):
        masks[index] = owner == position
        semantic[masks[index]] = _KIND_CLASS[scene.objects[index].kind]
    text_mask = owner == len(order)
    semantic[text_mask] = len(SEMANTIC_CLASSES) - 1
    boxes = [raster.box(thing, centres[index], short) for index, thing in enumerate(scene.objects)]
    return Rendered(
        image=_to_bytes(canvas), masks=masks, boxes=np.array(boxes, np.float32).reshape(-1, 4), semantic=semantic,
        text_mask=text_mask, foreground=foreground,
    )  # fmt: skip


@lru_cache(maxsize=256)
def _palette(colour: str) -> np.ndarray:
    """RGBA of every fill role on a thing of this colour, uint8 `[roles, 4]`."""
    main = COLOURS[colour]
    own = (main, tint(colour), mix(main, (255, 255, 255), 0.45), shade(colour), contour(colour))
    colours = (*own, *(accent(name, colour) for name in ACCENTS))
    return np.array([(0, 0, 0, 0), *((*rgb, 255) for rgb in colours)], np.uint8)


def _layer(scene: Scene, index: int, centre: np.ndarray, short: int, factor: int) -> _Layer:
    thing = scene.objects[index]
    tile = raster.draw(thing, centre, short, factor)
    palette = _palette(thing.colour)
    if thing.texture == "shiny":
        palette = palette.copy()
        palette[raster.ROLE_INDEX["second"], :3] = mix(COLOURS[thing.colour], (255, 255, 255), 0.8)
    # The palette is opaque or empty, so its entries are premultiplied already.
    whole = Image.frombytes("RGBa", tile.roles.shape[::-1], palette.view(np.uint32)[:, 0].take(tile.roles).tobytes())
    small = np.asarray(whole.reduce(factor), np.float32)
    down = np.linspace(0, 1, len(small), dtype=np.float32)[:, None, None]
    light = 1.16 - 0.42 * down if thing.texture == "shiny" else 1.04 - 0.1 * down
    return _Layer(tile.x, tile.y, np.minimum(small[..., :3] * light, small[..., 3:]), small[..., 3] / 255)


@lru_cache(maxsize=64)
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise DataError("scene text needs a Pillow that was built with FreeType")
    return font


def _text_layer(text: SceneText, width: int, height: int, factor: int) -> _Layer:
    """The word, centred, as high as it asks for or as wide as the frame allows."""
    short = min(width, height)
    size = max(1, round(text.height * short * factor / 0.72))
    room = (1 - 2 * _TEXT_MARGIN) * short * factor
    left, top, right, bottom = _font(size).getbbox(text.word, stroke_width=max(1, size // 22))
    size = max(1, int(size * min(1, room / (right - left))))
    font, pen = _font(size), max(1, size // 22)
    left, top, right, bottom = (round(edge) for edge in font.getbbox(text.word, stroke_width=pen))
    tile_width, tile_height = -(-(right - left) // factor) + 1, -(-(bottom - top) // factor) + 1
    image = Image.new("L", (tile_width * factor, tile_height * factor))
    ImageDraw.Draw(image).text((-left, -top), text.word, font=font, fill=255, stroke_width=pen)
    coverage = np.asarray(image.reduce(factor), np.float32) / 255
    margin = round(_TEXT_MARGIN * short)
    rows = {"top": margin, "center": (height - tile_height) // 2, "bottom": height - margin - tile_height}
    colour = np.array(COLOURS[text.colour], np.float32) * coverage[..., None]
    return _Layer((width - tile_width) // 2, rows[text.place], colour, coverage)


def _overlap(array: np.ndarray, x: int, y: int, shape: tuple[int, ...]) -> tuple[np.ndarray, tuple[slice, slice]]:
    """The part of `array` `[..., H, W]` under a patch at (x, y), and the part of the patch inside the frame."""
    height, width = array.shape[-2:]
    top, left = max(y, 0), max(x, 0)
    bottom, right = max(min(y + shape[0], height), top), max(min(x + shape[1], width), left)
    return array[..., top:bottom, left:right], (slice(top - y, bottom - y), slice(left - x, right - x))


def _compose(canvas: np.ndarray, shares: np.ndarray, layer: _Layer) -> None:
    """Puts a layer over the canvas; the shares `[L, H, W]` of what is behind shrink, the last becomes the layer's."""
    below, inside = _overlap(np.moveaxis(canvas, -1, 0), layer.x, layer.y, layer.coverage.shape)
    coverage = layer.coverage[inside]
    below *= 1 - coverage
    below[:3] += np.moveaxis(layer.colour[inside], -1, 0)
    below[3] += coverage
    behind, _ = _overlap(shares, layer.x, layer.y, layer.coverage.shape)
    behind *= 1 - coverage
    behind[-1] = coverage


def _cast_shadow(canvas: np.ndarray, layer: _Layer, short: int) -> None:
    blur = max(0.6, _SHADOW_BLUR * short)
    margin = int(blur * 3) + 1
    padded = np.pad((layer.coverage * (255 * _SHADOW_STRENGTH)).astype(np.uint8), margin)
    soft = np.asarray(Image.fromarray(padded).filter(ImageFilter.BoxBlur(blur)), np.float32) / 255
    x, y = (round(offset * short) - margin for offset in _SHADOW_OFFSET)
    below, inside = _overlap(np.moveaxis(canvas, -1, 0)[:3], layer.x + x, layer.y + y, soft.shape)
    tone = np.array([34, 30, 66], np.float32)[:, None, None]
    below += soft[inside] * (tone - below)


def _to_bytes(canvas: np.ndarray) -> np.ndarray:
    """RGBA bytes of premultiplied colour in 0 to 255 and alpha in 0 to 1; the canvas is used up."""
    alpha = canvas[..., 3:]
    canvas[..., :3] /= np.maximum(alpha, 1 / 255)
    alpha *= 255
    return np.clip(canvas + 0.5, 0, 255).astype(np.uint8)
