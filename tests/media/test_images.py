import io
import zlib

import numpy as np
import pytest
from PIL import Image

from kilonova.core.errors import InvalidRequest
from kilonova.media.images import decode_image, drop_opaque_alpha, encode_image, sniff_format
from kilonova.media.limits import ImageLimits

LIMITS = ImageLimits()
ALL = ImageLimits(formats=("png", "jpeg", "webp"))


def file_of(image, format="PNG", **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (48, 32, 3), np.uint8)


def test_pixels_survive_files_that_keep_everything(pixels):
    alpha = np.concatenate((pixels, pixels[..., :1]), axis=-1)
    for format in ("png", "webp"):
        assert np.array_equal(decode_image(encode_image(pixels, format), ALL), pixels)
    assert np.array_equal(decode_image(encode_image(alpha, "png"), ALL), alpha)
    assert sniff_format(encode_image(alpha, "jpeg")) == "jpeg"
    white = decode_image(encode_image(np.zeros((16, 16, 4), np.uint8), "jpeg"), ALL)
    assert white.min() > 250


def test_grey_palette_and_black_and_white_become_rgb(pixels):
    image = Image.fromarray(pixels)
    for mode in ("L", "P", "1"):
        expected = np.array(image.convert(mode).convert("RGB"))
        assert np.array_equal(decode_image(file_of(image.convert(mode)), LIMITS), expected)
    opaque = decode_image(file_of(image.convert("RGBA")), LIMITS)
    assert np.array_equal(drop_opaque_alpha(opaque), pixels)
    palette = file_of(image.convert("P"), transparency=3)
    assert decode_image(palette, LIMITS).shape[-1] == 4


def bomb(width, height):
    """A PNG of a few hundred bytes that claims to have many pixels."""
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])

    def chunk(kind, data):
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(100_000)))
        + chunk(b"IEND", b"")
    )


def test_what_a_file_claims_is_checked_before_it_is_decoded(monkeypatch):
    monkeypatch.setattr(Image.Image, "convert", lambda *_: pytest.fail("it was decoded"))
    for size, message in (
        ((60_000, 60_000), "Each side|total number"),
        ((4096, 4096), "total number of pixels must be at most 4,194,304"),
        ((4000, 900), "aspect ratio must be between 1:4 and 4:1"),
        ((5000, 5000), "Each side must be between 16 and 4096"),
        ((8, 8), "Each side"),
    ):
        with pytest.raises(InvalidRequest, match=message):
            decode_image(bomb(*size), LIMITS)


def test_what_is_no_whole_picture_of_eight_bits(pixels):
    png = file_of(Image.fromarray(pixels))
    deep = file_of(Image.fromarray(pixels[..., 0].astype(np.uint16) * 257))
    cmyk = file_of(Image.fromarray(pixels).convert("CMYK"), "JPEG")
    for data, message in (
        (b"", "PNG or JPEG"),
        (file_of(Image.fromarray(pixels), "GIF"), "PNG or JPEG"),
        (file_of(Image.fromarray(pixels), "WEBP"), "PNG or JPEG"),
        (png[: len(png) // 2], "truncated or corrupt"),
        (png[:30], "truncated or corrupt"),
        (png[:60] + b"?" + png[61:], "truncated or corrupt"),
        (file_of(Image.fromarray(pixels), "JPEG")[:300], "truncated or corrupt"),
        (deep, "8 bits a color channel; it has 16"),
        (cmyk, "8-bit RGB; its colors are CMYK"),
    ):
        with pytest.raises(InvalidRequest, match=message):
            decode_image(data, LIMITS)
    with pytest.raises(InvalidRequest, match="transparent or translucent"):
        drop_opaque_alpha(np.full((16, 16, 4), 254, np.uint8))


def test_metadata_is_in_a_png(pixels):
    data = encode_image(pixels, "png", metadata={"made": "here"})
    assert Image.open(io.BytesIO(data)).text == {"made": "here"}
