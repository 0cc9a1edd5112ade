"""Forms with files, `multipart/form-data` (RFC 7578)."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from kilonova.core.errors import InvalidRequest

_MAX_PARTS = 100


class _Parser(MultiPartParser):
    """One that keeps files in memory, and knows whether the last boundary came."""

    ended = False

    def on_end(self) -> None:
        self.ended = True


async def parse_multipart(body: bytes, headers: Headers) -> list[tuple[str, str | bytes]]:
    """The fields of a form, in order, as names with text or the content of files. Raises InvalidRequest."""
    if not headers.get("content-type", "").startswith("multipart/form-data"):
        raise InvalidRequest("The body must be multipart/form-data with a boundary.")

    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    parser = _Parser(headers, stream(), max_files=_MAX_PARTS, max_fields=_MAX_PARTS)
    parser.spool_max_size = len(body) + 1
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise InvalidRequest(f"The multipart body cannot be read: {error.message}") from None
    if not parser.ended:
        raise InvalidRequest("The multipart body is cut off, or its boundary is not the one of the header.")
    fields: list[tuple[str, str | bytes]] = []
    for name, value in form.multi_items():
        fields.append((name, await value.read() if isinstance(value, UploadFile) else value))
    await form.close()
    return fields
