"""Requests for pictures as typed structures."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from kilonova.core.errors import InvalidRequest
from kilonova.media.limits import ImageFormat, ImageLimits

MAX_IMAGES = 10
MAX_PROMPT_CHARACTERS = 1024
MAX_SEED = 2_147_483_646
SIDE_MULTIPLE = 16

Prompt = Annotated[str, Meta(min_length=1, max_length=MAX_PROMPT_CHARACTERS)]
RequestedQuality = Literal["auto", "low", "medium", "high", "xhigh", "max", "standard", "hd"]

_PREMIUM = ("high", "xhigh", "max", "hd")
_SIZE = re.compile(r"(\d{1,5})x(\d{1,5})")
_SIZE_LIMITS = ImageLimits(min_side=256)


class ImageFields(Struct, forbid_unknown_fields=True, kw_only=True):
    """What all of them share. Members whose type is Any change nothing in the answer."""

    model: str | None = None
    n: Annotated[int, Meta(ge=1, le=MAX_IMAGES)] | None = None
    size: str | None = None
    response_format: Literal["url", "b64_json"] | None = None
    user: Any = None
    # Not OpenAI's.
    seed: Annotated[int, Meta(ge=0, le=MAX_SEED)] | None = None
    negative_prompt: Prompt | None = None

    def requested_size(self) -> tuple[int, int] | None:
        """Width and height, None where they are left to the model. Raises InvalidRequest."""
        if self.size in (None, "auto"):
            return None
        match = _SIZE.fullmatch(self.size or "")
        if match is None:
            raise InvalidRequest(
                f"Invalid value: '{self.size}'. Supported are 'auto' and 'WIDTHxHEIGHT'.", field="size"
            )
        width, height = int(match[1]), int(match[2])
        try:
            _SIZE_LIMITS.check(width, height)
        except InvalidRequest as error:
            raise InvalidRequest(f"Invalid size '{self.size}'. {error}", field="size") from None
        if width % SIDE_MULTIPLE or height % SIDE_MULTIPLE:
            message = f"Invalid size '{self.size}'. Width and height must both be divisible by {SIDE_MULTIPLE}."
            raise InvalidRequest(message, field="size")
        return width, height


class DrawnFields(ImageFields, kw_only=True):
    """What pictures of a prompt share, new ones and edited ones."""

    prompt: Prompt
    quality: RequestedQuality | None = None
    background: Literal["transparent", "opaque", "auto"] | None = None
    output_format: ImageFormat | None = None
    output_compression: Annotated[int, Meta(ge=0, le=100)] | None = None
    stream: bool | None = None
    partial_images: Annotated[int, Meta(ge=0, le=3)] | None = None
    safety_identifier: Any = None
    moderation: Any = None

    @property
    def is_premium(self) -> bool:
        """Whether more than the usual quality is asked for."""
        return self.quality in _PREMIUM

    @property
    def is_transparent(self) -> bool:
        """Whether there is to be nothing behind what is shown."""
        return self.background == "transparent"

    def check(self) -> None:
        """Raises InvalidRequest for parameters that do not go together."""
        file_format = self.output_format or "png"
        if self.is_transparent and file_format == "jpeg":
            message = "A transparent background needs 'output_format' to be 'png' or 'webp'."
            raise InvalidRequest(message, field="background")
        if self.output_compression not in (None, 100) and file_format == "png":
            message = "Compression less than 100 is not supported for PNG output format."
            raise InvalidRequest(message, field="output_compression")
        if self.partial_images and not self.stream:
            message = "'partial_images' is only allowed when 'stream' is true."
            raise InvalidRequest(message, field="partial_images")
        if self.stream and self.response_format == "url":
            raise InvalidRequest("A stream holds pictures and no addresses of them.", field="response_format")


class ImageGenerationRequest(DrawnFields, kw_only=True):
    """POST /v1/images/generations; `style` is also one of Canvas's."""

    style: str | None = None


class ImageEditRequest(DrawnFields, kw_only=True):
    """POST /v1/images/edits, without the files."""

    input_fidelity: Any = None


class ImageVariationRequest(ImageFields, kw_only=True):
    """POST /v1/images/variations, without the file."""
