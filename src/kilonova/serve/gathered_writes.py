"""A transport that sends what is written to it in one turn of the event loop in one piece."""

from __future__ import annotations

import asyncio
from typing import Any

# More than this is sent at once, so that the transport can say that its client reads too slowly.
_MAX_BYTES = 64 * 1024


class GatheredWrites:
    """`transport` with fewer system calls: a stream's first chunks leave with its head, and its last ones together.

    All but `write`, `close` and `abort` is the transport's own.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._pieces: list[bytes] = []
        self._num_bytes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send `data` before the event loop waits again."""
        if not self._pieces:
            self._loop.call_soon(self._flush)
        self._pieces.append(data)
        self._num_bytes += len(data)
        if self._num_bytes > _MAX_BYTES:
            self._flush()

    def close(self) -> None:
        """Close it once everything is sent."""
        self._flush()
        self._transport.close()

    def abort(self) -> None:
        """Close it at once."""
        self._pieces.clear()
        self._transport.abort()

    def _flush(self) -> None:
        pieces, self._pieces, self._num_bytes = self._pieces, [], 0
        if pieces:
            self._transport.write(pieces[0] if len(pieces) == 1 else b"".join(pieces))
