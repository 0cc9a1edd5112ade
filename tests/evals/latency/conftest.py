"""A server that answers at known times, in the OpenAI and the Bedrock protocol."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from kilonova.serve.bedrock.eventstream import encode_event, encode_exception

BASE_TOKENS = 7


@dataclass
class Pace:
    """How the server behaves. `status` tells the HTTP status of the request of that number, from 0 on."""

    first: float = 0.0
    between: float = 0.0
    tokens_per_event: int = 1
    usage: bool = True
    known_fields: tuple[str, ...] = ("ignore_eos",)
    breaks_after: int | None = None
    fails_after: int | None = None
    status: Callable[[int], int] = lambda _: 200
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)


@dataclass
class PacedServer:
    """The server's URL and its behaviour, which a test sets."""

    url: str
    pace: Pace

    @staticmethod
    def count_tokens(prompt: str) -> int:
        """What the server says a prompt has: an overhead, and the letters of every word."""
        return BASE_TOKENS + sum(len(word) for word in prompt.split()[1:])


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    pace: Pace

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._json(200, {"object": "list", "data": [{"id": "paced"}]})

    def do_POST(self) -> None:
        pace = self.pace
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        number = len(pace.bodies)
        pace.bodies.append(body)
        pace.headers.append({name.lower(): value for name, value in self.headers.items()})
        status = pace.status(number)
        unknown = {"ignore_eos"} & body.keys() - {*pace.known_fields}
        if unknown:
            status = 400
        if status != 200:
            message = f"Unrecognized request argument supplied: {min(unknown)}" if unknown else "no place is free"
            self._json(status, {"error": {"message": message}})
        elif self.path.endswith("/converse-stream"):
            self._stream(body["messages"][0]["content"][0]["text"], body["inferenceConfig"]["maxTokens"], _Bedrock())
        elif self.path.endswith("/chat/completions"):
            self._stream(body["messages"][0]["content"], body["max_tokens"], _Chat())
        else:
            self._stream(body["prompt"], body["max_tokens"], _Completions())

    def _json(self, status: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _stream(self, prompt: str, max_tokens: int, wire: Any) -> None:
        pace = self.pace
        self.send_response(200)
        self.send_header("content-type", wire.media_type)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        self._chunk(wire.start())
        for index in range(max_tokens // pace.tokens_per_event or 1):
            if index == pace.breaks_after:
                self.close_connection = True
                return
            if index == pace.fails_after:
                self._chunk(wire.error("the model fell over"))
                break
            # Requests for one token are how the client learns what words cost.
            if max_tokens > 1:
                time.sleep(pace.between if index else pace.first)
            self._chunk(wire.text("word " * pace.tokens_per_event))
        else:
            self._chunk(wire.end((PacedServer.count_tokens(prompt), max_tokens) if pace.usage else None))
        self.wfile.write(b"0\r\n\r\n")

    def _chunk(self, data: bytes) -> None:
        if data:
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")


def _sse(value: Any) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


class _Completions:
    media_type = "text/event-stream"

    def start(self) -> bytes:
        return b""

    def text(self, text: str) -> bytes:
        return _sse({"choices": [{"index": 0, "text": text, "finish_reason": None}]})

    def end(self, usage: tuple[int, int] | None) -> bytes:
        last = _sse({"choices": [{"index": 0, "text": "", "finish_reason": "length"}]})
        if usage is not None:
            last += _sse({"choices": [], "usage": {"prompt_tokens": usage[0], "completion_tokens": usage[1]}})
        return last + b"data: [DONE]\n\n"

    def error(self, message: str) -> bytes:
        return _sse({"error": {"message": message}}) + b"data: [DONE]\n\n"


class _Chat(_Completions):
    def start(self) -> bytes:
        return _sse({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]})

    def text(self, text: str) -> bytes:
        return _sse({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]})


class _Bedrock:
    media_type = "application/vnd.amazon.eventstream"

    def _event(self, kind: str, value: Any) -> bytes:
        return encode_event(kind, json.dumps(value).encode())

    def start(self) -> bytes:
        return self._event("messageStart", {"role": "assistant"})

    def text(self, text: str) -> bytes:
        return self._event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": text}})

    def end(self, usage: tuple[int, int] | None) -> bytes:
        assert usage is not None
        counts = {"inputTokens": usage[0], "outputTokens": usage[1], "totalTokens": sum(usage)}
        return self._event("messageStop", {"stopReason": "max_tokens"}) + self._event(
            "metadata", {"usage": counts, "metrics": {"latencyMs": 1}}
        )

    def error(self, message: str) -> bytes:
        return encode_exception("internalServerException", json.dumps({"message": message}).encode())


@pytest.fixture
def paced() -> Iterator[PacedServer]:
    """A server of one's own, on a free port."""
    pace = Pace()
    handler = type("Handler", (_Handler,), {"pace": pace})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield PacedServer(f"http://127.0.0.1:{server.server_address[1]}", pace)
    finally:
        server.shutdown()
        server.server_close()
