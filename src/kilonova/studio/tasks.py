"""What a picture model can be asked for: one type a task, in the terms of the studio.

Pictures are uint8 arrays `[height, width, 3]`, red, green and blue. A mask is a bool array `[height, width]`, True
where the picture is to be made anew, or the words for what it shows. What breaks these rules is an InvalidRequest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from kilonova.core.errors import InvalidRequest
from kilonova.models.condition import ControlType

Style = Literal[
    "3D_ANIMATED_FAMILY_FILM",
    "DESIGN_SKETCH",
    "FLAT_VECTOR_ILLUSTRATION",
    "GRAPHIC_NOVEL_ILLUSTRATION",
    "MAXIMALISM",
    "MIDCENTURY_RETRO",
    "PHOTOREALISM",
    "SOFT_DIGITAL_PAINTING",
]
Quality = Literal["standard", "premium"]
OutpaintingMode = Literal["DEFAULT", "PRECISE"]
MaskShape = Literal["DEFAULT", "CONTOUR", "BOUNDING_BOX"]
MergeStyle = Literal["BALANCED", "SEAMLESS", "DETAILED"]
GarmentClass = Literal[
    "UPPER_BODY",
    "LOWER_BODY",
    "FULL_BODY",
    "FOOTWEAR",
    "LONG_SLEEVE_SHIRT",
    "SHORT_SLEEVE_SHIRT",
    "NO_SLEEVE_SHIRT",
    "OTHER_UPPER_BODY",
    "LONG_PANTS",
    "SHORT_PANTS",
    "OTHER_LOWER_BODY",
    "LONG_DRESS",
    "SHORT_DRESS",
    "FULL_BODY_OUTFIT",
    "OTHER_FULL_BODY",
    "SHOES",
    "BOOTS",
    "OTHER_FOOTWEAR",
]
BodyPart = Literal["pose", "hands", "face"]

MAX_IMAGES = 5
MAX_COLORS = 10
MAX_REFERENCES = 5
MIN_SIMILARITY = 0.2


@dataclass(frozen=True, kw_only=True)
class Control:
    """A picture whose edges, or regions of one colour, the new one follows as far as `strength` in [0, 1] says."""

    picture: np.ndarray
    type: ControlType = ControlType.CANNY_EDGE
    strength: float = 0.7

    def __post_init__(self) -> None:
        _check_picture("picture", self.picture)
        _check_share("strength", self.strength, 0.0)


@dataclass(frozen=True, kw_only=True)
class TextToImage:
    """A picture from words."""

    text: str
    negative_text: str = ""
    style: Style | None = None
    control: Control | None = None


@dataclass(frozen=True, kw_only=True)
class ColorGuidedGeneration:
    """A picture from words in 1 to 10 sRGB `colors`, each of three numbers from 0 to 255, and perhaps like another."""

    text: str
    colors: tuple[tuple[int, int, int], ...]
    reference: np.ndarray | None = None
    negative_text: str = ""

    def __post_init__(self) -> None:
        if not 1 <= len(self.colors) <= MAX_COLORS:
            raise InvalidRequest(f"colors: {len(self.colors)} are not between 1 and {MAX_COLORS}", field="colors")
        if any(len(color) != 3 or not all(0 <= part <= 255 for part in color) for color in self.colors):
            raise InvalidRequest("colors: each is three numbers from 0 to 255", field="colors")
        if self.reference is not None:
            _check_picture("reference", self.reference)


@dataclass(frozen=True, kw_only=True)
class ImageVariation:
    """A picture like those of `images`, 1 to 5, as far as `similarity` in [0.2, 1] says."""

    images: tuple[np.ndarray, ...]
    text: str = ""
    negative_text: str = ""
    similarity: float = 0.7

    def __post_init__(self) -> None:
        if not 1 <= len(self.images) <= MAX_REFERENCES:
            raise InvalidRequest(f"images: {len(self.images)} are not between 1 and {MAX_REFERENCES}", field="images")
        for image in self.images:
            _check_picture("images", image)
        _check_share("similarity", self.similarity, MIN_SIMILARITY)


@dataclass(frozen=True, kw_only=True)
class Inpainting:
    """A picture with a part replaced by what `text` says; without words the thing in that part is removed.

    A `mask` of words names what is to be replaced.
    """

    image: np.ndarray
    mask: np.ndarray | str
    text: str = ""
    negative_text: str = ""

    def __post_init__(self) -> None:
        _check_picture("image", self.image)
        _check_mask(self.mask, self.image)


@dataclass(frozen=True, kw_only=True)
class Outpainting:
    """A picture with new surroundings.

    A `mask` of words names what is to be kept. `PRECISE` keeps exactly that; `DEFAULT` lets its border blend in.
    """

    image: np.ndarray
    mask: np.ndarray | str
    mode: OutpaintingMode = "DEFAULT"
    text: str = ""
    negative_text: str = ""

    def __post_init__(self) -> None:
        _check_picture("image", self.image)
        _check_mask(self.mask, self.image)


@dataclass(frozen=True, kw_only=True)
class BackgroundRemoval:
    """What stands in the foreground of a picture, all else transparent."""

    image: np.ndarray

    def __post_init__(self) -> None:
        _check_picture("image", self.image)


@dataclass(frozen=True, kw_only=True)
class GarmentMask:
    """Where a person wears, or would wear, a garment of a class."""

    garment: GarmentClass
    shape: MaskShape = "DEFAULT"
    long_sleeves: bool | None = None
    tucked: bool | None = None
    open: bool | None = None


@dataclass(frozen=True, kw_only=True)
class PromptMask:
    """What a picture shows of what `prompt` says."""

    prompt: str
    shape: MaskShape = "DEFAULT"


@dataclass(frozen=True, kw_only=True)
class VirtualTryOn:
    """A person, or a room, with what another picture shows put on.

    `BALANCED` draws with the whole picture in view, `SEAMLESS` carries the colours of what is drawn over to those at
    its border besides, `DETAILED` draws what is close around the mask alone, at the model's full size. `preserve` are
    the parts of the body that are kept even where the mask covers them.
    """

    source: np.ndarray
    reference: np.ndarray
    mask: np.ndarray | GarmentMask | PromptMask
    preserve: frozenset[BodyPart] = frozenset()
    merge_style: MergeStyle = "BALANCED"
    return_mask: bool = False

    def __post_init__(self) -> None:
        _check_picture("source", self.source)
        _check_picture("reference", self.reference)
        _check_mask(self.mask, self.source)


ImageTask = (
    TextToImage | ColorGuidedGeneration | ImageVariation | Inpainting | Outpainting | BackgroundRemoval | VirtualTryOn
)


@dataclass(frozen=True, kw_only=True)
class ImageRequest:
    """A task and how it is done.

    `width` and `height` are those of the new pictures in pixels; None stands for the model's own. Edits have the size
    of the given picture, whatever is said here. The same `seed` gives the same pictures on the same machine; those of
    `num_images` are of `seed`, `seed` + 1 and so on. `num_inference_steps` None follows `quality`. Raises
    InvalidRequest for what no model could do.
    """

    task: ImageTask
    width: int | None = None
    height: int | None = None
    num_images: int = 1
    seed: int = 12
    cfg_scale: float = 6.5
    quality: Quality = "standard"
    num_inference_steps: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.num_images <= MAX_IMAGES:
            raise InvalidRequest(f"num_images: {self.num_images} is not between 1 and {MAX_IMAGES}")
        if (self.width is None) != (self.height is None):
            raise InvalidRequest("width and height come together")
        if self.width is not None and self.height is not None and min(self.width, self.height) < 1:
            raise InvalidRequest(f"width, height: {self.width} x {self.height} is no size")
        if not self.cfg_scale >= 1:
            raise InvalidRequest(f"cfg_scale: {self.cfg_scale} is less than 1")
        if self.num_inference_steps is not None and self.num_inference_steps < 1:
            raise InvalidRequest(f"num_inference_steps: {self.num_inference_steps} is less than 1")
        if self.quality not in get_args(Quality):
            raise InvalidRequest(f"quality: {self.quality!r} is not one of {', '.join(get_args(Quality))}")


@dataclass(frozen=True, kw_only=True)
class ImageResult:
    """New pictures, uint8 `[height, width, 3]`, or 4 with alpha, in order; and how they were made.

    `mask` is what was made anew, for tasks that were asked to tell. `native_size` (width, height) is the size at which
    the model drew, `num_inference_steps` how often it was asked for each picture.
    """

    images: tuple[np.ndarray, ...]
    mask: np.ndarray | None = None
    native_size: tuple[int, int]
    num_inference_steps: int
    seed: int


def _check_picture(name: str, picture: np.ndarray) -> None:
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[-1] != 3 or not picture.size:
        raise InvalidRequest(
            f"{name}: {picture.dtype} {list(picture.shape)} is not a uint8 picture [height, width, 3]", field=name
        )


def _check_mask(mask: object, picture: np.ndarray) -> None:
    if isinstance(mask, np.ndarray) and (mask.dtype != np.bool_ or mask.shape != picture.shape[:2]):
        raise InvalidRequest(
            f"mask: {mask.dtype} {list(mask.shape)} is not a bool mask {list(picture.shape[:2])}, as the picture is",
            field="mask",
        )
    if isinstance(mask, str) and not mask.strip():
        raise InvalidRequest("mask: no words say what it shows", field="mask")


def _check_share(name: str, value: float, least: float) -> None:
    if not least <= value <= 1:
        raise InvalidRequest(f"{name}: {value} is not between {least} and 1", field=name)
