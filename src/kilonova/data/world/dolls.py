"""Draws paper dolls and the garments they wear, with exact masks of clothes and parts of the body."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from kilonova.data.world import raster
from kilonova.data.world.backgrounds import REGIONS, paint
from kilonova.data.world.colours import ACCENTS, COLOURS, Rgb, accent, contour, mix, shade, tint
from kilonova.data.world.dolls_figure import (
    POSES,
    DollPose,
    Figure,
    face,
    feet,
    figure,
    hair,
    hands,
    head,
    neck,
    torso,
)
from kilonova.data.world.dolls_garments import GARMENTS, Garment, Piece, bare_arm, bare_leg, motif_outline
from kilonova.data.world.dolls_sampling import HAIR_COLOURS, SKINS, Doll
from kilonova.data.world.paths import ellipse, widened

PARTS: tuple[str, ...] = (
    "body", "face", "hair", "arms", "hands", "legs", "upper", "outer", "lower", "full", "feet",
)  # fmt: skip
# How a garment lies when nobody wears it.
_LAID_OUT = DollPose("", (38, 38), (30, 30), 7)
_RIM = 0.008
_TEXTURE_UNIT = 0.26
_PRODUCT_SHARE = 0.84
_HALF_HEIGHT = 0.49
_SHADOW: Rgb = (40, 36, 70)


@dataclass(frozen=True, eq=False)
class RenderedDoll:
    """A picture uint8 `[H, W, 4]`, opaque, and what is seen of each of `PARTS`, bool `[H, W]`; garments go by slot.

    `labels` int16 `[H, W]` are the indices of the background's `REGIONS`, then of `PARTS`.
    """

    image: np.ndarray
    parts: dict[str, np.ndarray]
    labels: np.ndarray


@dataclass(frozen=True, eq=False)
class _Shape:
    """Outlines drawn as one, with a rim, in one colour or in two by a texture."""

    part: str
    outlines: Sequence[np.ndarray]
    colour: Rgb
    rim: Rgb | None = None
    second: Rgb | None = None
    texture: str = "plain"


def render_doll(doll: Doll, size: tuple[int, int]) -> RenderedDoll:
    """The picture of `doll` at `size`, (width, height) in pixels."""
    width, height = size
    short = min(width, height)
    centre, unit = (doll.x * width, 0.5 * height), _HALF_HEIGHT * short * doll.scale
    body = figure(POSES[doll.pose], doll.build)
    layers = _rasterise(_dressed(doll, body), width, height, centre, unit)
    backdrop, regions = paint(doll.background, width, height)
    canvas = backdrop.copy()
    ground = _shade_below(body, width, height, centre, unit)[..., None]
    canvas += ground * (np.array(_SHADOW, np.float32) - canvas)
    canvas = canvas * (1 - layers.coverage[..., None]) + layers.colour
    labels = np.where(layers.owner >= 0, layers.owner + len(REGIONS), regions).astype(np.int16)
    parts = {name: layers.owner == index for index, name in enumerate(PARTS)}
    return RenderedDoll(_opaque(canvas), parts, labels)


def render_garment(garment: Garment, size: tuple[int, int]) -> np.ndarray:
    """A garment alone, laid out on white, as large as fits: uint8 `[H, W, 4]`, opaque."""
    width, height = size
    trunk, sleeves = GARMENTS[garment.kind].pieces(figure(_LAID_OUT, 1.0))
    shapes = [*_worn(garment, trunk, motif=True), *_worn(garment, sleeves)]
    corners = np.concatenate([points for shape in shapes for points in shape.outlines])
    low, high = corners.min(0), corners.max(0)
    unit = _PRODUCT_SHARE * float((np.array([width, height]) / (high - low)).min())
    middle = np.array([width, height]) / 2 - (low + high) / 2 * unit
    layers = _rasterise(shapes, width, height, (float(middle[0]), float(middle[1])), unit)
    return _opaque(255 * (1 - layers.coverage[..., None]) + layers.colour)


@dataclass(frozen=True, eq=False)
class _Layers:
    """Premultiplied colour float32 `[H, W, 3]` in 0 to 255, coverage float32 `[H, W]`, and the index of the part in
    each pixel's middle, -1 for none."""

    colour: np.ndarray
    coverage: np.ndarray
    owner: np.ndarray


def _dressed(doll: Doll, body: Figure) -> Iterable[_Shape]:
    """All of a doll, back to front."""
    skin = SKINS[doll.skin]
    hair_colour = HAIR_COLOURS[doll.hair_colour]
    behind, front = hair(doll.hair)
    edge = mix(skin, (96, 44, 40), 0.35)
    pieces = {garment: GARMENTS[garment.kind].pieces(body) for garment in doll.garments}
    if behind:
        yield _Shape("hair", behind, mix(hair_colour, (20, 16, 40), 0.18), mix(hair_colour, (20, 16, 40), 0.45))
    for leg in body.legs:
        yield _Shape("legs", bare_leg(leg), skin, edge)
    yield _Shape("legs", feet(body), skin, edge)
    yield _Shape("body", [*torso(body.build), *neck()], skin, edge)
    for garment in _order_of_trunks(doll):
        yield from _worn(garment, pieces[garment][0], motif=True)
    for arm in body.arms:
        yield _Shape("arms", bare_arm(arm), skin, edge)
    yield _Shape("hands", hands(body), skin, edge)
    for garment in doll.garments:
        yield from _worn(garment, pieces[garment][1])
    yield _Shape("face", head(), skin, edge)
    colours: dict[str, Rgb] = {
        "cheek": mix(skin, (240, 80, 90), 0.32),
        "ink": (44, 38, 50),
        "white": (255, 255, 255),
        "brow": mix(hair_colour, (40, 30, 40), 0.35),
        "mouth": mix(skin, (170, 30, 50), 0.7),
        "shade": edge,
    }
    for fill, points in face():
        yield _Shape("face", [points], colours[fill])
    yield _Shape("hair", front, hair_colour, mix(hair_colour, (20, 16, 40), 0.4))


def _order_of_trunks(doll: Doll) -> list[Garment]:
    """Garments back to front: boots go over what the legs wear, shoes under it; a shirt may be tucked in."""
    feet = doll.worn("feet")
    boots = feet is not None and feet.kind == "boots"
    order = ["upper", "lower"] if doll.tucked else ["lower", "upper"]
    order = [*order, "feet"] if boots and doll.worn("full") is None else ["feet", *order]
    slots = [*order, "full", "outer"]
    return sorted(doll.garments, key=lambda garment: slots.index(GARMENTS[garment.kind].slot))


def _worn(garment: Garment, pieces: Sequence[Piece], *, motif: bool = False) -> Iterable[_Shape]:
    slot = GARMENTS[garment.kind].slot
    main = COLOURS[garment.colour]
    rim = contour(garment.colour) if garment.texture == "outlined" else mix(main, (24, 22, 44), 0.42)
    second = mix(main, (255, 255, 255), 0.35) if garment.texture == "shiny" else tint(garment.colour)
    fills = {"main": main, "dark": shade(garment.colour), "light": tint(garment.colour)}
    fills |= {name: accent(name, garment.colour) for name in ACCENTS}
    for fill, outlines in pieces:
        if fill == "main":
            yield _Shape(slot, outlines, main, rim, second, garment.texture)
        else:
            yield _Shape(slot, outlines, fills[fill])
    if motif and garment.motif:
        colour = "sunny" if garment.colour not in ("yellow", "orange", "white") else "rose"
        yield _Shape(slot, [motif_outline(garment.motif)], accent(colour, garment.colour))


def _rasterise(shapes: Iterable[_Shape], width: int, height: int, centre: tuple[float, float], unit: float) -> _Layers:
    """Draws `shapes` with their origin at `centre`, `unit` pixels to a unit, several subpixels to a pixel."""
    factor = 4 if min(width, height) <= 192 else 2
    image = Image.new("L", (width * factor, height * factor))
    pencil = ImageDraw.Draw(image)
    entries: list[tuple[Rgb, int]] = [((0, 0, 0), -1)]
    patterns: dict[str, np.ndarray] = {}

    def draw(outlines: Iterable[np.ndarray], colour: Rgb, part: int) -> None:
        entries.append((colour, part))
        for points in outlines:
            corners = (points * unit + centre) * factor
            pencil.polygon(corners.ravel().tolist(), fill=len(entries) - 1)

    for shape in shapes:
        part = PARTS.index(shape.part)
        if shape.rim is not None:
            margin = 2 * _RIM if shape.texture == "outlined" else _RIM
            draw((widened(points, margin) for points in shape.outlines), shape.rim, part)
        draw(shape.outlines, shape.colour, part)
        if shape.second is not None and shape.texture not in ("plain", "outlined"):
            if shape.texture not in patterns:
                patterns[shape.texture] = _pattern(shape.texture, image.size, centre, unit, factor)
            drawn = np.asarray(image) == len(entries) - 1
            entries.append((shape.second, part))
            overlay = Image.fromarray((drawn & patterns[shape.texture]).astype(np.uint8) * 255)
            image.paste(len(entries) - 1, mask=overlay)
    index = np.asarray(image)
    palette = np.array([(*colour, 255 * (part >= 0)) for colour, part in entries], np.uint8)
    whole = Image.frombytes("RGBa", image.size, palette.view(np.uint32)[:, 0].take(index).tobytes())
    small = np.asarray(whole.reduce(factor), np.float32)
    middles = index[factor // 2 :: factor, factor // 2 :: factor]
    return _Layers(small[..., :3], small[..., 3] / 255, np.array([part for _, part in entries])[middles])


def _pattern(texture: str, size: tuple[int, int], centre: tuple[float, float], unit: float, factor: int) -> np.ndarray:
    """Where a garment has its second colour, bool `[h, w]` of the subpixels of a picture of `size`."""
    scale = unit * factor * _TEXTURE_UNIT
    u = (np.arange(size[0], dtype=np.float32) + 0.5 - centre[0] * factor) / scale
    v = ((np.arange(size[1], dtype=np.float32) + 0.5 - centre[1] * factor) / scale)[:, None]
    if texture == "shiny":
        return np.broadcast_to(np.abs(u + 0.3) < 0.09, (size[1], size[0]))
    return raster.pattern(texture, u, v)


def _shade_below(body: Figure, width: int, height: int, centre: tuple[float, float], unit: float) -> np.ndarray:
    """How dark the ground is under the doll, float32 `[H, W]`."""
    soles = body.legs[:, 2]
    left, right = soles[:, 0].min(), soles[:, 0].max()
    points = ellipse((left + right) / 2, soles[:, 1].max() + 0.07, (right - left) / 2 + 0.2, 0.05)
    image = Image.new("L", (width * 4, height * 4))
    ImageDraw.Draw(image).polygon(((points * unit + centre) * 4).ravel().tolist(), fill=56)
    return np.asarray(image.reduce(4), np.float32) / 255


def _opaque(canvas: np.ndarray) -> np.ndarray:
    picture = np.clip(canvas + 0.5, 0, 255).astype(np.uint8)
    return np.concatenate([picture, np.full_like(picture[..., :1], 255)], axis=-1)
