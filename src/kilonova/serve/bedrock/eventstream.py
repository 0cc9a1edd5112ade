"""Frames of `application/vnd.amazon.eventstream`, the binary framing of Bedrock's streamed answers.

A frame is: total length (u32), length of the headers (u32), CRC-32 of those eight bytes, headers, payload, CRC-32 of
everything before it; all big-endian. A header is a u8 name length, the name, the type 7 (string), a u16 value length
and the value.
"""

from __future__ import annotations

import struct
import zlib
from functools import lru_cache

MEDIA_TYPE = "application/vnd.amazon.eventstream"

_STRING_HEADER = 7


@lru_cache(maxsize=256)
def _encode_headers(headers: tuple[tuple[str, str], ...]) -> bytes:
    encoded = bytearray()
    for name, value in headers:
        name_bytes, value_bytes = name.encode(), value.encode()
        encoded += struct.pack("!B", len(name_bytes)) + name_bytes
        encoded += struct.pack("!BH", _STRING_HEADER, len(value_bytes)) + value_bytes
    return bytes(encoded)


def encode_frame(headers: tuple[tuple[str, str], ...], payload: bytes) -> bytes:
    """One frame with string-valued `headers` (names up to 255 bytes, values up to 65535) around `payload`."""
    encoded_headers = _encode_headers(headers)
    prelude = struct.pack("!II", 16 + len(encoded_headers) + len(payload), len(encoded_headers))
    frame = b"".join((prelude, struct.pack("!I", zlib.crc32(prelude)), encoded_headers, payload))
    return frame + struct.pack("!I", zlib.crc32(frame))


def encode_event(event_type: str, payload: bytes) -> bytes:
    """An event frame named `event_type` with a JSON payload."""
    return encode_frame(
        ((":event-type", event_type), (":content-type", "application/json"), (":message-type", "event")), payload
    )


def encode_exception(exception_type: str, payload: bytes) -> bytes:
    """An exception frame; `exception_type` is its member in the stream's shape, such as `throttlingException`."""
    return encode_frame(
        ((":exception-type", exception_type), (":content-type", "application/json"), (":message-type", "exception")),
        payload,
    )
