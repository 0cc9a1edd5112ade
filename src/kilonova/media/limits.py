"""What a picture that comes from elsewhere may be; checked before its pixels are looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kilonova.core.errors import InvalidRequest

ImageFormat = Literal["png", "jpeg", "webp"]


@dataclass(frozen=True, kw_only=True)
class ImageLimits:
    """What a picture may be: formats, sides and area in pixels, and how many times one side may be the other."""

    formats: tuple[ImageFormat, ...] = ("png", "jpeg")
    min_side: int = 16
    max_side: int = 4096
    max_pixels: int = 2048 * 2048
    max_aspect: int = 4

    def check(self, width: int, height: int) -> None:
        """Raises InvalidRequest for a size that is out of bounds."""
        long, short = max(width, height), min(width, height)
        size = f"it is {width} x {height}"
        if short < self.min_side or long > self.max_side:
            raise InvalidRequest(f"Each side must be between {self.min_side} and {self.max_side} pixels; {size}.")
        if long > self.max_aspect * short:
            raise InvalidRequest(
                f"The aspect ratio must be between 1:{self.max_aspect} and {self.max_aspect}:1; {size}."
            )
        if width * height > self.max_pixels:
            raise InvalidRequest(f"The total number of pixels must be at most {self.max_pixels:,}; {size}.")
