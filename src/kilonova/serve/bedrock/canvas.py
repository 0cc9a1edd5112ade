"""Canvas's own JSON, as InvokeModel carries it, to the studio's requests and back.

What a schema can say is in `canvas_schema`; here is what it cannot: pictures, masks, and what goes together.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from kilonova.core.errors import InvalidRequest
from kilonova.media.images import decode_image, drop_opaque_alpha
from kilonova.media.limits import ImageLimits
from kilonova.models.condition import ControlType
from kilonova.serve.bedrock.canvas_schema import ANY_TASK, DEFAULT_SIDE, MIN_SIDE, TASKS
from kilonova.serve.bedrock.json_schema import check, compile_schema, malformed
from kilonova.serve.bedrock.shapes import MalformedBody, decode_object
from kilonova.serve.picture_files import encode
from kilonova.studio.tasks import (
    BackgroundRemoval,
    BodyPart,
    ColorGuidedGeneration,
    Control,
    GarmentMask,
    ImageRequest,
    ImageResult,
    ImageTask,
    ImageVariation,
    Inpainting,
    Outpainting,
    PromptMask,
    TextToImage,
    VirtualTryOn,
)

_Parameters = Mapping[str, Any]

_LIMITS = ImageLimits()
_SIZE_LIMITS = ImageLimits(min_side=MIN_SIDE)
_MASKS = ("maskPrompt", "maskImage")
_MASK_MEMBERS = {"IMAGE": "imageBasedMask", "GARMENT": "garmentBasedMask", "PROMPT": "promptBasedMask"}
_BODY_PARTS: dict[str, BodyPart] = {"preserveBodyPose": "pose", "preserveHands": "hands", "preserveFace": "face"}
_GENERATIONS = ("TEXT_IMAGE", "COLOR_GUIDED_GENERATION", "IMAGE_VARIATION")


@dataclass(frozen=True)
class CanvasRequest:
    """What a body asks of the studio, and which of its members the mask comes from, empty without one."""

    request: ImageRequest
    mask_member: str

    @contextlib.contextmanager
    def named_as_sent(self) -> Iterator[None]:
        """Lets what the studio finds wrong with a mask name its member."""
        with _renamed({"mask": self.mask_member} if self.mask_member else {}):
            yield


def parse(body: bytes) -> CanvasRequest:
    """The studio's request of a body; takes as long as decoding its pictures does.

    Raises InvalidRequest, which names the member at fault.
    """
    try:
        value = decode_object(body)
    except MalformedBody as error:
        message = f"Malformed input request, please reformat your input and try again. {error}"
        raise InvalidRequest(message) from None
    check(value, compile_schema(ANY_TASK))
    kind = value["taskType"]
    member, schema = TASKS[kind]
    check(value, compile_schema(schema))
    given = value[member]
    mask_member = _mask_member(given, member)
    with _renamed({"mask": mask_member} if mask_member else {}):
        task = _TO_TASK[kind](given, member)
    return CanvasRequest(_to_request(kind, task, value.get("imageGenerationConfig", {})), mask_member)


def response(results: Sequence[ImageResult], model: str) -> bytes:
    """The whole answer: pictures, and the mask where one was asked for, in base64.

    A mask is black where the picture was made anew, as masks that come in are.
    """
    answer: dict[str, Any] = {"images": []}
    for result in results:
        answer["images"] += [_to_base64(encode(image, "png", result, model)) for image in result.images]
        if result.mask is not None:
            mask = np.where(result.mask[..., None], np.uint8(0), np.uint8(255)).repeat(3, axis=-1)
            answer["maskImage"] = _to_base64(encode(mask, "png", result, model))
    return msgspec.json.encode(answer)


def _to_request(kind: str, task: ImageTask, config: _Parameters) -> ImageRequest:
    if kind == "BACKGROUND_REMOVAL":
        return ImageRequest(task=task)
    width, height = _size(config) if kind in _GENERATIONS else (None, None)
    return ImageRequest(
        task=task,
        width=width,
        height=height,
        num_images=int(config.get("numberOfImages", 1)),
        seed=int(config.get("seed", 12)),
        cfg_scale=float(config.get("cfgScale", 6.5)),
        quality=config.get("quality", "standard"),
    )


def _mask_member(given: _Parameters, path: str) -> str:
    members = [*_MASKS, *([_MASK_MEMBERS[given["maskType"]]] if "maskType" in given else ())]
    return next((f"{path}.{member}" for member in members if member in given), "")


def _size(config: _Parameters) -> tuple[int, int]:
    width, height = (int(config.get(name, DEFAULT_SIDE)) for name in ("width", "height"))
    with _at("imageGenerationConfig"):
        _SIZE_LIMITS.check(width, height)
    return width, height


def _to_text_image(given: _Parameters, path: str) -> ImageTask:
    control = None
    if "conditionImage" in given:
        control = Control(
            picture=_picture(given["conditionImage"], f"{path}.conditionImage"),
            type=ControlType[given.get("controlMode", "CANNY_EDGE")],
            strength=float(given.get("controlStrength", 0.7)),
        )
    return TextToImage(**_texts(given), style=given.get("style"), control=control)


def _to_color_guided(given: _Parameters, path: str) -> ImageTask:
    reference = given.get("referenceImage")
    return ColorGuidedGeneration(
        **_texts(given),
        colors=tuple(_to_color(color) for color in given["colors"]),
        reference=None if reference is None else _picture(reference, f"{path}.referenceImage"),
    )


def _to_variation(given: _Parameters, path: str) -> ImageTask:
    images = (_picture(image, f"{path}.images.{index}") for index, image in enumerate(given["images"]))
    similarity = float(given.get("similarityStrength", 0.7))
    return ImageVariation(**_texts(given), images=tuple(images), similarity=similarity)


def _to_inpainting(given: _Parameters, path: str) -> ImageTask:
    image = _picture(given["image"], f"{path}.image")
    return Inpainting(**_texts(given), image=image, mask=_image_or_prompt(given, path, image, edited=0))


def _to_outpainting(given: _Parameters, path: str) -> ImageTask:
    image = _picture(given["image"], f"{path}.image")
    # The API's pages contradict each other on its masks. As in the one on outpainting, white is what is made anew.
    mask = _image_or_prompt(given, path, image, edited=255)
    return Outpainting(**_texts(given), image=image, mask=mask, mode=given.get("outPaintingMode", "DEFAULT"))


def _to_background_removal(given: _Parameters, path: str) -> ImageTask:
    return BackgroundRemoval(image=_picture(given["image"], f"{path}.image"))


def _to_try_on(given: _Parameters, path: str) -> ImageTask:
    kind = given["maskType"]
    for each, member in _MASK_MEMBERS.items():
        if each == kind and member not in given:
            raise malformed([(path, f"required key [{member}] not found")])
        if each != kind and member in given:
            raise malformed([(path, f"extraneous key [{member}] is not permitted")])
    source = _picture(given["sourceImage"], f"{path}.sourceImage")
    described = given[_MASK_MEMBERS[kind]]
    mask: np.ndarray | GarmentMask | PromptMask
    if kind == "IMAGE":
        mask = _mask(described["maskImage"], f"{path}.imageBasedMask.maskImage", source, edited=0)
    elif kind == "PROMPT":
        mask = PromptMask(prompt=described["maskPrompt"], shape=described.get("maskShape", "DEFAULT"))
    else:
        mask = _to_garment_mask(described)
    return VirtualTryOn(
        source=source,
        reference=_picture(given["referenceImage"], f"{path}.referenceImage"),
        mask=mask,
        preserve=_to_preserved(given.get("maskExclusions", {}), is_drawn=kind == "IMAGE"),
        merge_style=given.get("mergeStyle", "BALANCED"),
        return_mask=given.get("returnMask", False),
    )


_TO_TASK: dict[str, Callable[[_Parameters, str], ImageTask]] = {
    "TEXT_IMAGE": _to_text_image,
    "COLOR_GUIDED_GENERATION": _to_color_guided,
    "IMAGE_VARIATION": _to_variation,
    "INPAINTING": _to_inpainting,
    "OUTPAINTING": _to_outpainting,
    "BACKGROUND_REMOVAL": _to_background_removal,
    "VIRTUAL_TRY_ON": _to_try_on,
}


def _to_garment_mask(given: _Parameters) -> GarmentMask:
    styling = given.get("garmentStyling", {})

    def is_set(member: str, value: str) -> bool | None:
        return styling[member] == value if member in styling else None

    return GarmentMask(
        garment=given["garmentClass"],
        shape=given.get("maskShape", "DEFAULT"),
        long_sleeves=is_set("longSleeveStyle", "SLEEVE_DOWN"),
        tucked=is_set("tuckingStyle", "TUCKED"),
        open=is_set("outerLayerStyle", "OPEN"),
    )


def _to_preserved(given: _Parameters, *, is_drawn: bool) -> frozenset[BodyPart]:
    """A mask that was drawn says itself what is kept; of one that is found, all parts of the body are left out."""
    switches = {member: given.get(member, "DEFAULT") for member in _BODY_PARTS}
    is_on = {"ON": True, "OFF": False, "DEFAULT": not is_drawn}
    return frozenset(_BODY_PARTS[member] for member, switch in switches.items() if is_on[switch])


def _to_color(text: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(text[1:])
    return red, green, blue


def _texts(given: _Parameters) -> dict[str, str]:
    return {"text": given.get("text", ""), "negative_text": given.get("negativeText", "")}


def _image_or_prompt(given: _Parameters, path: str, image: np.ndarray, *, edited: int) -> np.ndarray | str:
    if sum(member in given for member in _MASKS) != 1:
        raise malformed([(path, "exactly one of the keys [maskPrompt] and [maskImage] is required")])
    if "maskPrompt" in given:
        return given["maskPrompt"]
    return _mask(given["maskImage"], f"{path}.maskImage", image, edited=edited)


def _picture(text: str, path: str) -> np.ndarray:
    """The pixels `[height, width, 3]` of a picture in base64."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest("The image must be a base64-encoded string, without a prefix.", field=path) from None
    with _at(path):
        return drop_opaque_alpha(decode_image(data, _LIMITS))


def _mask(text: str, path: str, image: np.ndarray, *, edited: int) -> np.ndarray:
    """Where a mask has the grey level `edited`, 0 or 255, bool `[height, width]` of `image`."""
    pixels = _picture(text, path)
    if pixels.shape != image.shape:
        height, width, _ = pixels.shape
        raise InvalidRequest(
            f"The mask must have the size of the image, {image.shape[1]} x {image.shape[0]}; it is {width} x {height}.",
            field=path,
        )
    level = pixels[..., 0]
    if not ((pixels == level[..., None]).all() and ((level == 0) | (level == 255)).all()):
        raise InvalidRequest("The mask must contain no other colors than pure black and white.", field=path)
    return level == edited


@contextlib.contextmanager
def _renamed(names: Mapping[str, str]) -> Iterator[None]:
    """Lets InvalidRequest name members as the body does."""
    try:
        yield
    except InvalidRequest as error:
        name = names.get(error.field or "")
        if name is None:
            raise
        raise InvalidRequest(str(error), field=name) from None


@contextlib.contextmanager
def _at(path: str) -> Iterator[None]:
    """Lets what is wrong with a picture or a size name its member."""
    try:
        yield
    except InvalidRequest as error:
        raise InvalidRequest(str(error), field=path) from None


def _to_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
