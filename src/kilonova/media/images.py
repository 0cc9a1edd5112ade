"""Pictures that come from anywhere, decoded within limits, and pictures as files.

Pillow reads the files. What a file claims about itself is checked before its pixels are looked at, so that a small file
cannot ask for much memory.
"""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from kilonova.core.errors import InvalidRequest
from kilonova.media.limits import ImageFormat, ImageLimits

_PNG = b"\x89PNG\r\n\x1a\n"
# In a PNG the header is the first chunk; this is the place of its number of bits a channel.
_PNG_DEPTH = 24
# Pillow's names for pixels of at most eight bits a channel that have colours of the screen.
_MODES = frozenset({"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa"})


def sniff_format(data: bytes) -> ImageFormat | None:
    """What a file is by its first bytes, None for anything else."""
    if data.startswith(_PNG):
        return "png"
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    return "webp" if data.startswith(b"RIFF") and data[8:12] == b"WEBP" else None


def decode_image(data: bytes, limits: ImageLimits) -> np.ndarray:
    """The pixels of a file, uint8 `[height, width, 3]` in RGB, or 4 with alpha where the file has any.

    Of an animation the first picture. Raises InvalidRequest for what is no whole picture of 8-bit RGB, grey or palette
    within the limits.
    """
    kind = sniff_format(data)
    if kind is None or kind not in limits.formats:
        raise InvalidRequest(f"The image must be a {' or '.join(each.upper() for each in limits.formats)} file.")
    if kind == "png" and len(data) > _PNG_DEPTH and data[_PNG_DEPTH] > 8:
        raise InvalidRequest(f"The image must have 8 bits a color channel; it has {data[_PNG_DEPTH]}.")
    try:
        with Image.open(io.BytesIO(data), formats=[kind.upper()]) as image:
            limits.check(*image.size)
            if image.mode not in _MODES:
                raise InvalidRequest(f"The image must be 8-bit RGB; its colors are {image.mode}.")
            return np.array(image.convert("RGBA" if image.has_transparency_data else "RGB"))
    except InvalidRequest:
        raise
    except Image.DecompressionBombError:
        raise InvalidRequest(f"The total number of pixels must be at most {limits.max_pixels:,}.") from None
    # Decoders raise whatever comes of nonsense: SyntaxError, struct.error, OSError, ValueError, and more.
    except Exception:
        raise InvalidRequest("The image cannot be decoded: the file is truncated or corrupt.") from None


def drop_opaque_alpha(pixels: np.ndarray) -> np.ndarray:
    """The colours `[height, width, 3]` of a picture; raises InvalidRequest where some of it is transparent."""
    if pixels.shape[-1] == 4 and pixels[..., 3].min() < 255:
        raise InvalidRequest("The image must not have transparent or translucent pixels.")
    return pixels[..., :3]


def encode_image(
    pixels: np.ndarray, format: ImageFormat, *, compression: int = 100, metadata: Mapping[str, str] | None = None
) -> bytes:
    """A file of pixels uint8 `[height, width, 3 or 4]`.

    `compression`, from 0 to 100, is how much JPEG and WebP keep; at 100 WebP keeps everything. JPEG shows what is
    transparent on white. `metadata` goes into PNG's text chunks.
    """
    image = Image.fromarray(pixels)
    file = io.BytesIO()
    if format == "png":
        text = PngInfo()
        for name, value in (metadata or {}).items():
            text.add_text(name, value)
        image.save(file, "PNG", pnginfo=text)
    elif format == "webp":
        image.save(file, "WEBP", quality=compression, lossless=compression == 100)
    else:
        if image.mode == "RGBA":
            background = Image.new("RGB", image.size, "white")
            background.paste(image, mask=image.getchannel("A"))
            image = background
        image.save(file, "JPEG", quality=max(compression, 1))
    return file.getvalue()
