"""The OpenAI API's requests for pictures as the studio's."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import get_args

import numpy as np
from PIL import Image

from kilonova.core.errors import InvalidRequest, nearest
from kilonova.media.images import decode_image
from kilonova.media.limits import ImageLimits
from kilonova.serve.openai.image_requests import (
    MAX_SEED,
    DrawnFields,
    ImageEditRequest,
    ImageFields,
    ImageGenerationRequest,
    ImageVariationRequest,
)
from kilonova.studio.tasks import (
    MAX_IMAGES,
    MAX_REFERENCES,
    ImageRequest,
    ImageTask,
    ImageVariation,
    Inpainting,
    Style,
    TextToImage,
)

DEFAULT_SIZE = (1024, 1024)

_LIMITS = ImageLimits(formats=("png", "jpeg", "webp"))
# The names of a service that is no more; both are as good as none.
_LEGACY_STYLES = ("vivid", "natural")


def to_generations(body: ImageGenerationRequest) -> list[ImageRequest]:
    """New pictures."""
    size = body.requested_size() or DEFAULT_SIZE
    style = None
    if body.style is not None and body.style not in _LEGACY_STYLES:
        style = next((each for each in get_args(Style) if each == body.style.upper()), None)
        if style is None:
            hint = nearest(body.style, (*_LEGACY_STYLES, *get_args(Style)))
            raise InvalidRequest(f"Invalid value for 'style': {hint}", field="style")
    task = TextToImage(text=body.prompt, negative_text=body.negative_prompt or "", style=style)
    return _requests(body, task, size)


def to_edits(body: ImageEditRequest, images: Sequence[bytes], mask: bytes | None) -> list[ImageRequest]:
    """What is transparent in a mask, or else in the picture, made anew; without any, pictures like those given."""
    pictures = [_decode(data, "image") for data in images]
    first = pictures[0]
    edited = _transparent(first) if mask is None else _mask(mask, first)
    size = body.requested_size() or (first.shape[1], first.shape[0])
    text, negative_text = body.prompt, body.negative_prompt or ""
    if edited is None:
        if len(pictures) > MAX_REFERENCES:
            raise InvalidRequest(f"At most {MAX_REFERENCES} images can be given.", field="image")
        task = ImageVariation(images=tuple(map(_on_white, pictures)), text=text, negative_text=negative_text)
        return _requests(body, task, size)
    if len(pictures) > 1:
        raise InvalidRequest("With a mask, a single image can be given.", field="image")
    image, edited = _resize(_on_white(first), size), _resize(edited, size)
    return _requests(body, Inpainting(image=image, mask=edited, text=text, negative_text=negative_text), None)


def to_variations(body: ImageVariationRequest, image: bytes) -> list[ImageRequest]:
    """Pictures like the one that is given."""
    task = ImageVariation(images=(_on_white(_decode(image, "image")),), negative_text=body.negative_prompt or "")
    return _requests(body, task, body.requested_size() or DEFAULT_SIZE)


def _requests(body: ImageFields, task: ImageTask, size: tuple[int, int] | None) -> list[ImageRequest]:
    """As many as the studio needs to make all pictures; a given seed goes up by one a picture."""
    count = body.n or 1
    seed = random.randrange(MAX_SEED - count) if body.seed is None else body.seed
    width, height = size or (None, None)
    return [
        ImageRequest(
            task=task,
            width=width,
            height=height,
            num_images=min(MAX_IMAGES, count - done),
            seed=seed + done,
            quality="premium" if isinstance(body, DrawnFields) and body.is_premium else "standard",
        )
        for done in range(0, count, MAX_IMAGES)
    ]


def _decode(data: bytes, field: str) -> np.ndarray:
    try:
        return decode_image(data, _LIMITS)
    except InvalidRequest as error:
        raise InvalidRequest(f"Invalid '{field}': {error}", field=field) from None


def _transparent(pixels: np.ndarray) -> np.ndarray | None:
    """Where a picture cannot be seen at all, bool `[height, width]`; None if that is nowhere."""
    if pixels.shape[-1] == 3:
        return None
    hidden = pixels[..., 3] == 0
    return hidden if hidden.any() else None


def _mask(data: bytes, image: np.ndarray) -> np.ndarray:
    pixels = _decode(data, "mask")
    if pixels.shape[:2] != image.shape[:2]:
        raise InvalidRequest("Invalid mask image size: it must have the size of the image.", field="mask")
    hidden = _transparent(pixels)
    if hidden is None:
        raise InvalidRequest("Invalid mask: it has no transparent pixels, which tell what to edit.", field="mask")
    return hidden


def _on_white(pixels: np.ndarray) -> np.ndarray:
    if pixels.shape[-1] == 3:
        return pixels
    alpha = pixels[..., 3:].astype(np.float32) / 255
    return np.rint(pixels[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)


def _resize(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if (pixels.shape[1], pixels.shape[0]) == size:
        return pixels
    method = Image.Resampling.NEAREST if pixels.dtype == bool else Image.Resampling.LANCZOS
    return np.array(Image.fromarray(pixels).resize(size, method))
