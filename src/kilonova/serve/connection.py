"""HTTP/1.1 connections that neither a slow client nor a long head can hold for ever."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from kilonova.serve.settings import LimitsSection

_HEAD_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class Connection(HttpToolsProtocol):
    """uvicorn's, closed where its client takes too long to send a head or to read what it was sent.

    The timers are set when a head begins and when the socket takes no more, not for every write.
    """

    def __init__(self, *, limits: LimitsSection, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._limits = limits
        self._is_in_head = False
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None

    @property
    def is_answering(self) -> bool:
        """Whether a request is being answered."""
        return self.cycle is not None and not self.cycle.response_complete

    def abort(self) -> None:
        """Close it now; what is not sent is lost."""
        self.transport.abort()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self._limits.max_connections:
            transport.abort()
        else:
            self._head_timer = self.loop.call_later(self._limits.receive_seconds, self.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        _cancel(self._head_timer)
        _cancel(self._write_timer)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._is_in_head:
            self._head_bytes += len(data)
            if self._head_bytes > self._limits.max_header_bytes:
                self._refuse_head()

    def on_message_begin(self) -> None:
        """A request's first byte has come."""
        super().on_message_begin()
        self._is_in_head, self._head_bytes = True, 0
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self._limits.receive_seconds, self.abort)

    def on_headers_complete(self) -> None:
        """The whole head has come."""
        self._is_in_head = False
        _cancel(self._head_timer)
        self._head_timer = None
        super().on_headers_complete()

    def on_header(self, name: bytes, value: bytes) -> None:
        """As uvicorn's. Raises ValueError, upon which the parser stops, for a head that is too large."""
        super().on_header(name, value)
        # For a head that comes in one piece.
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > self._limits.max_header_bytes:
            self._head_bytes = self._limits.max_header_bytes + 1
            raise ValueError("the request's head is too large")

    def send_400_response(self, msg: str) -> None:
        """As uvicorn's, with the status 431 where the head is too large."""
        if self._head_bytes > self._limits.max_header_bytes:
            self._refuse_head()
        else:
            super().send_400_response(msg)

    def pause_writing(self) -> None:
        """The client does not read as fast as it is written to."""
        super().pause_writing()
        self._write_timer = self.loop.call_later(self._limits.write_seconds, self.abort)

    def resume_writing(self) -> None:
        """The client has read."""
        super().resume_writing()
        _cancel(self._write_timer)
        self._write_timer = None

    def _refuse_head(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(_HEAD_TOO_LARGE)
            self.transport.close()


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
