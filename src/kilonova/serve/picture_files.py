"""New pictures as files that tell how they were made."""

from __future__ import annotations

import msgspec
import numpy as np

from kilonova.media.images import encode_image
from kilonova.media.limits import ImageFormat
from kilonova.studio.tasks import ImageRequest, ImageResult, VirtualTryOn

METADATA_NAME = "kilonova"


def encode(
    pixels: np.ndarray, format: ImageFormat, result: ImageResult, model: str, *, compression: int = 100
) -> bytes:
    """A file of one picture of a result; a PNG has a text chunk with the model, the seed and the native size."""
    width, height = result.native_size
    made = {
        "model": model,
        "seed": result.seed,
        "native_size": f"{width}x{height}",
        "num_inference_steps": result.num_inference_steps,
    }
    metadata = {METADATA_NAME: msgspec.json.encode(made).decode()}
    return encode_image(pixels, format, compression=compression, metadata=metadata)


def size_of(request: ImageRequest) -> tuple[int, int]:
    """The width and height in pixels of the pictures that a request asks for."""
    if request.width is not None and request.height is not None:
        return request.width, request.height
    task = request.task
    given = task.source if isinstance(task, VirtualTryOn) else getattr(task, "image", None)
    if given is None:
        raise ValueError(f"{type(task).__name__}: a size is needed")
    return given.shape[1], given.shape[0]
