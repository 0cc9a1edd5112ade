"""Frames are decoded with botocore's own decoder."""

import json

import pytest
from botocore.eventstream import ChecksumMismatch, EventStreamBuffer

from kilonova.serve.bedrock.eventstream import encode_event, encode_exception, encode_frame


def decode(data: bytes) -> list:
    buffer = EventStreamBuffer()
    buffer.add_data(data)
    return list(buffer)


def test_event_round_trip():
    payload = json.dumps({"delta": {"text": "naïve ☕"}, "contentBlockIndex": 0}, ensure_ascii=False).encode()
    (message,) = decode(encode_event("contentBlockDelta", payload))
    assert message.payload == payload
    assert message.headers == {
        ":event-type": "contentBlockDelta",
        ":content-type": "application/json",
        ":message-type": "event",
    }


def test_exception_frame():
    (message,) = decode(encode_exception("modelStreamErrorException", b'{"message":"x"}'))
    assert message.headers[":message-type"] == "exception"
    assert message.headers[":exception-type"] == "modelStreamErrorException"
    response = message.to_response_dict()
    assert response["status_code"] == 400
    assert response["body"] == b'{"message":"x"}'


@pytest.mark.parametrize("size", [0, 1, 15, 1 << 16, 999_000])
def test_payload_sizes_and_splits(size):
    payload = bytes(range(256)) * (size // 256 + 1)
    payload = payload[:size]
    stream = encode_event("a", payload) + encode_frame((), payload)
    buffer = EventStreamBuffer()
    step = max(1, len(stream) // 7)
    for start in range(0, len(stream), step):
        buffer.add_data(stream[start : start + step])
    first, second = list(buffer)
    assert first.payload == payload
    assert second.payload == payload
    assert second.headers == {}


def test_a_flipped_bit_is_noticed():
    frame = bytearray(encode_event("chunk", b'{"bytes":"AAAA"}'))
    frame[-6] ^= 1
    with pytest.raises(ChecksumMismatch):
        decode(bytes(frame))
