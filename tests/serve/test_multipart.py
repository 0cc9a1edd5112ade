import asyncio

import httpx2
import pytest
from starlette.datastructures import Headers

from kilonova.core.errors import InvalidRequest
from kilonova.serve.multipart import parse_multipart

TYPE = "multipart/form-data; boundary=XX"


def parse(body: bytes, content_type: str) -> list[tuple[str, str | bytes]]:
    return asyncio.run(parse_multipart(body, Headers({"content-type": content_type})))


def test_forms_as_a_client_writes_them():
    data = bytes(range(256)) * 8000 + b"\r\n--not the boundary\r\n\r\n"
    request = httpx2.Request(
        "POST",
        "http://x",
        data={"prompt": "größer\r\nals", "n": "2"},
        files=[("image[]", ("a b.png", data)), ("image[]", ("c.png", b""))],
    )
    fields = parse(request.read(), request.headers["content-type"])
    assert fields == [("prompt", "größer\r\nals"), ("n", "2"), ("image[]", data), ("image[]", b"")]


@pytest.mark.parametrize(
    ("body", "content_type", "message"),
    [
        (b"--XX--", "application/json", "multipart/form-data"),
        (b"--XX--", "multipart/form-data", "boundary"),
        (b"", TYPE, "cut off"),
        (b'--XX\r\nContent-Disposition: form-data; name="a"\r\n\r\nb', TYPE, "cut off"),
        (b"--YY\r\n", TYPE, "cannot be read"),
        (b"--XX\r\nContent-Disposition: form-data\r\n\r\nb\r\n--XX--", TYPE, '"name" must be provided'),
        (b'--XX\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n' * 200 + b"--XX--", TYPE, "Too many fields"),
    ],
)
def test_what_is_no_form(body, content_type, message):
    with pytest.raises(InvalidRequest, match=message):
        parse(body, content_type)
