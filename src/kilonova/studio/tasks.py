"""What a picture model can be asked for: one type a task, in the terms of the studio.

Pictures are uint8 arrays `[height, width, 3]`, red, green and blue. A mask is a bool array `[height, width]`, True
where the picture is to be made anew, or the words for what it shows.
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


@dataclass(frozen=True, kw_only=True)
class Control:
    """A picture whose edges, or regions of one colour, the new one follows as far as `strength` in [0, 1] says."""

    picture: np.ndarray
    type: ControlType = ControlType.CANNY_EDGE
    strength: float = 0.7


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


@dataclass(frozen=True, kw_only=True)
class ImageVariation:
    """A picture like those of `images`, 1 to 5, as far as `similarity` in [0.2, 1] says."""

    images: tuple[np.ndarray, ...]
    text: str = ""
    negative_text: str = ""
    similarity: float = 0.7


@dataclass(frozen=True, kw_only=True)
class Inpainting:
    """A picture with a part replaced by what `text` says; without words the thing in that part is removed.

    A `mask` of words names what is to be replaced.
    """

    image: np.ndarray
    mask: np.ndarray | str
    text: str = ""
    negative_text: str = ""


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


@dataclass(frozen=True, kw_only=True)
class BackgroundRemoval:
    """What stands in the foreground of a picture, all else transparent."""

    image: np.ndarray


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

    `preserve` are the parts of the body that are kept even where the mask covers them.
    """

    source: np.ndarray
    reference: np.ndarray
    mask: np.ndarray | GarmentMask | PromptMask
    preserve: frozenset[BodyPart] = frozenset()
    merge_style: MergeStyle = "BALANCED"
    return_mask: bool = False


ImageTask = (
    TextToImage | ColorGuidedGeneration | ImageVariation | Inpainting | Outpainting | BackgroundRemoval | VirtualTryOn
)


@dataclass(frozen=True, kw_only=True)
class ImageRequest:
    """A task and how it is done.

    `width` and `height` are those of the new pictures in pixels; None, as edits have it, stands for the given
    picture's. The same `seed` gives the same pictures on the same machine, whatever `num_images` there are beside each.
    `num_inference_steps` None follows `quality`. Raises InvalidRequest for what no model could do.
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
