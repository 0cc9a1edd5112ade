"""The console's page and what it is made of, as they lie in `static/`."""

from __future__ import annotations

import hashlib
import mimetypes
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

DIRECTORY = Path(__file__).with_name("static")
_PAGE = "index.html"

# Nothing but what this server sends runs, is shown or is reached; no text ever becomes markup.
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "media-src 'self' blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
_HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    # Kept by the browser, and asked about each time: a new version shows at once.
    "cache-control": "no-cache",
}


@dataclass(frozen=True, slots=True)
class _File:
    body: bytes
    media_type: str
    tag: str


class Pages:
    """The files, held in memory: they are few, and nothing outside `static/` can be asked for."""

    def __init__(self) -> None:
        self._files = {
            path.relative_to(DIRECTORY).as_posix(): _read(path) for path in DIRECTORY.rglob("*") if path.is_file()
        }

    def routes(self) -> list[Route]:
        """The page and its parts, which are for anyone."""
        return [
            Route("/", self.page, methods=["GET"]),
            Route("/console/{path:path}", self.part, methods=["GET"]),
        ]

    async def page(self, request: Request) -> Response:
        """GET /."""
        return _answer(request, self._files[_PAGE])

    async def part(self, request: Request) -> Response:
        """GET /console/{path}."""
        file = self._files.get(request.path_params["path"])
        if file is None:
            return Response("There is no such file.", status_code=404, media_type="text/plain", headers=_HEADERS)
        return _answer(request, file)


def _read(path: Path) -> _File:
    # Not left to the machine's own table of types, which may have it wrong.
    media_type = {".js": "text/javascript", ".svg": "image/svg+xml"}.get(path.suffix)
    body = path.read_bytes()
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    return _File(body, media_type or mimetypes.guess_type(path.name)[0] or "application/octet-stream", tag)


def _answer(request: Request, file: _File) -> Response:
    headers = {**_HEADERS, "etag": file.tag}
    known = request.headers.get("if-none-match", "").replace("W/", "").split(",")
    if file.tag in (tag.strip() for tag in known):
        return Response(status_code=304, headers=headers)
    return Response(file.body, media_type=file.media_type, headers=headers)
