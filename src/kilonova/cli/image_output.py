"""Pictures as files that say how they were made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

import kilonova
from kilonova.core.errors import InvalidRequest
from kilonova.core.files import write_atomic
from kilonova.media.images import ImageFormat, encode_image

_FORMATS: dict[str, ImageFormat] = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}
_JPEG_QUALITY = 92


def check_format(path: Path, *, transparent: bool = False) -> ImageFormat:
    """The format that the ending of `path` names; InvalidRequest for others, and for JPEG if it is `transparent`."""
    found = _FORMATS.get(path.suffix.lower())
    if found is None:
        raise InvalidRequest(f"--output: {path} does not end in one of {', '.join(_FORMATS)}")
    if transparent and found == "jpeg":
        raise InvalidRequest(f"--output: {path} cannot be transparent; write a .png or .webp file")
    return found


def numbered(path: Path, count: int) -> list[Path]:
    """`path` itself for one picture, else `name-1.png`, `name-2.png` and so on."""
    if count == 1:
        return [path]
    return [path.with_stem(f"{path.stem}-{number}") for number in range(1, count + 1)]


def write_picture(path: Path, pixels: np.ndarray, metadata: Mapping[str, str]) -> None:
    """Write `pixels` uint8 `[H, W, 3 or 4]`, whole or not at all; a PNG holds what is not empty of `metadata`."""
    kind = check_format(path)
    told = {"software": f"kilonova {kilonova.__version__}", **{key: text for key, text in metadata.items() if text}}
    compression = _JPEG_QUALITY if kind == "jpeg" else 100
    write_atomic(path, encode_image(pixels, kind, compression=compression, metadata=told))
