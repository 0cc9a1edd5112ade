"""From options and files to what a picture model is asked for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, get_args

import numpy as np

from kilonova.core.errors import InvalidRequest, nearest
from kilonova.media.images import ImageLimits, decode_image
from kilonova.models.condition import ControlType
from kilonova.studio.tasks import (
    BackgroundRemoval,
    BodyPart,
    ColorGuidedGeneration,
    Control,
    GarmentClass,
    GarmentMask,
    ImageTask,
    ImageVariation,
    Inpainting,
    MergeStyle,
    Outpainting,
    PromptMask,
    Style,
    TextToImage,
    VirtualTryOn,
)

T = TypeVar("T")

_LIMITS = ImageLimits(formats=("png", "jpeg", "webp"), min_side=1, max_side=16384, max_pixels=2**26, max_aspect=2**14)
_COLOR = re.compile(r"#?([0-9a-fA-F]{2})([0-9a-fA-F]{2})([0-9a-fA-F]{2})")
_BLACK = 128


@dataclass(frozen=True, kw_only=True)
class TaskOptions:
    """What the command line said of the task; files are paths, names are as they were typed."""

    text: str
    negative: str
    style: str | None
    image: Path | None
    mask: Path | None
    mask_prompt: str | None
    outpaint: bool
    precise: bool
    remove_background: bool
    colors: str | None
    like: list[Path]
    similarity: float
    control: Path | None
    segmentation: bool
    control_strength: float
    wear: Path | None
    garment: str | None
    merge: str
    keep: list[str]


def build_task(options: TaskOptions) -> ImageTask:
    """The task that the options stand for. InvalidRequest for options that do not go together, and for no picture."""
    if options.image is not None:
        return _edit(options, read_picture(options.image))
    for name in ("mask", "mask_prompt", "outpaint", "remove_background", "wear"):
        if getattr(options, name):
            raise InvalidRequest(f"--{name.replace('_', '-')} needs --image, the picture to change")
    if options.colors is not None:
        return ColorGuidedGeneration(
            text=_text(options),
            colors=parse_colors(options.colors),
            reference=read_picture(_only("--like", options.like)) if options.like else None,
            negative_text=options.negative,
        )
    if options.like:
        return ImageVariation(
            images=tuple(map(read_picture, options.like)),
            text=options.text,
            negative_text=options.negative,
            similarity=options.similarity,
        )
    control = None
    if options.control is not None:
        kind = ControlType.SEGMENTATION if options.segmentation else ControlType.CANNY_EDGE
        control = Control(picture=read_picture(options.control), type=kind, strength=options.control_strength)
    style: Style | None = None if options.style is None else choose("--style", options.style, get_args(Style))
    return TextToImage(text=_text(options), negative_text=options.negative, style=style, control=control)


def read_picture(path: Path) -> np.ndarray:
    """The picture in a PNG, JPEG or WebP file, uint8 `[H, W, 3]`, on white; InvalidRequest names the file."""
    try:
        pixels = decode_image(path.read_bytes(), _LIMITS)
    except InvalidRequest as error:
        raise InvalidRequest(f"{path}: {error}") from error
    if pixels.shape[-1] == 3:
        return pixels
    alpha = pixels[..., 3:].astype(np.float32) / 255
    return np.rint(pixels[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)


def read_mask(path: Path) -> np.ndarray:
    """A mask, bool `[H, W]`, True where the picture in the file is nearer to black than to white."""
    return read_picture(path).mean(axis=-1) < _BLACK


def parse_colors(text: str) -> tuple[tuple[int, int, int], ...]:
    """Colours from hexadecimal numbers with commas between, such as "#ff8800,#0044cc"."""
    colors = []
    for part in text.split(","):
        found = _COLOR.fullmatch(part.strip())
        if found is None:
            raise InvalidRequest(f"--colors: {part.strip()!r} is not a color such as #ff8800")
        red, green, blue = (int(number, 16) for number in found.groups())
        colors.append((red, green, blue))
    return tuple(colors)


def choose(option: str, value: str, allowed: tuple[T, ...]) -> T:
    """The one of `allowed` that was typed, in any case and with dashes; InvalidRequest suggests the nearest."""
    typed = value.upper().replace("-", "_").replace(" ", "_")
    for name in allowed:
        if str(name).upper() == typed:
            return name
    raise InvalidRequest(f"{option}: {value!r} is unknown; {nearest(typed, map(str, allowed))}")


def _edit(options: TaskOptions, image: np.ndarray) -> ImageTask:
    for name in ("colors", "like", "control", "style"):
        if getattr(options, name):
            raise InvalidRequest(f"--{name} is for new pictures, and --image for changing one")
    if options.remove_background:
        return BackgroundRemoval(image=image)
    if options.wear is not None:
        return VirtualTryOn(
            source=image,
            reference=read_picture(options.wear),
            mask=_try_on_mask(options),
            preserve=frozenset(_body_part(part) for part in options.keep),
            merge_style=choose("--merge", options.merge, get_args(MergeStyle)),
        )
    if (options.mask is None) == (options.mask_prompt is None):
        raise InvalidRequest("--image needs one of --mask and --mask-prompt, or --remove-background, or --wear")
    mask = read_mask(options.mask) if options.mask is not None else options.mask_prompt
    assert mask is not None
    if options.outpaint:
        return Outpainting(
            image=image,
            mask=mask,
            mode="PRECISE" if options.precise else "DEFAULT",
            text=_text(options),
            negative_text=options.negative,
        )
    return Inpainting(image=image, mask=mask, text=options.text, negative_text=options.negative)


def _try_on_mask(options: TaskOptions) -> np.ndarray | GarmentMask | PromptMask:
    given = [name for name in ("mask", "mask_prompt", "garment") if getattr(options, name) is not None]
    if len(given) != 1:
        raise InvalidRequest("--wear needs exactly one of --garment, --mask and --mask-prompt")
    if options.garment is not None:
        garment: GarmentClass = choose("--garment", options.garment, get_args(GarmentClass))
        return GarmentMask(garment=garment)
    if options.mask is not None:
        return read_mask(options.mask)
    return PromptMask(prompt=options.mask_prompt or "")


def _body_part(name: str) -> BodyPart:
    part: BodyPart = choose("--keep", name, get_args(BodyPart))
    return part


def _text(options: TaskOptions) -> str:
    if not options.text.strip():
        raise InvalidRequest('say what to draw, as in: kilonova image "a red apple"')
    return options.text


def _only(option: str, paths: list[Path]) -> Path:
    if len(paths) > 1:
        raise InvalidRequest(f"{option} takes one picture beside --colors")
    return paths[0]
