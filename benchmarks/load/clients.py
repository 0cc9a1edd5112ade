"""Streaming clients that cost next to nothing, so that they do not slow the server on the same machine."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import dataclass, field

from load.requests import TEMPERATURE, TOP_P, Plan, plans

_END = b"\r\n0\r\n\r\n"
_TIMEOUT_SECONDS = 300.0


@dataclass
class Tally:
    """What the clients of one round saw, and how long it took. `ids` are the server's, of the requests it took."""

    outcomes: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    seconds: float = 0.0


class _Client(asyncio.Protocol):
    """One connection; reads an answer at a time and looks at no more of it than at its head and its end."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.is_lost = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport

    def ask(self, request: bytes, leaves_after: int | None) -> asyncio.Future[str]:
        self._answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._leaves_after = leaves_after
        self._pieces = 0
        self.head = b""
        self._tail = b""
        self._has_error = False
        assert self.transport is not None
        self.transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        if not self.head.endswith(b"\r\n\r\n"):
            head, end, data = (self.head + data).partition(b"\r\n\r\n")
            self.head = head + end
            if not end:
                return
        self._pieces += 1
        if b'"error"' in data or b":exception-type" in data:
            self._has_error = True
        self._tail = (self._tail + data)[-4096:]
        if self._is_over():
            self._finish("failed" if self._has_error or self.status != 200 else "finished")
        elif self._leaves_after is not None and self._pieces > self._leaves_after:
            self._finish("left")

    def connection_lost(self, error: Exception | None) -> None:
        self.is_lost = True
        if hasattr(self, "_answer") and not self._answer.done():
            self._answer.set_result("cut")

    @property
    def status(self) -> int:
        return int(self.head.split(b" ", 2)[1])

    @property
    def request_id(self) -> str:
        return self.head.lower().partition(b"x-request-id: ")[2].partition(b"\r\n")[0].decode()

    @property
    def end(self) -> str:
        return self._tail.decode("utf-8", "replace")

    def _is_over(self) -> bool:
        length = self.head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        return len(self._tail) >= int(length) if length else self._tail.endswith(_END)

    def _finish(self, outcome: str) -> None:
        if not self._answer.done():
            self._answer.set_result(outcome)


async def run_clients(host: str, port: int, model: str, count: int, seconds: float, seed: int) -> Tally:
    """`count` clients that ask one request after another until `seconds` have passed; those that run then end."""
    tally = Tally()
    start = asyncio.get_running_loop().time()
    stop = start + seconds
    await asyncio.gather(*(_run_client(host, port, model, stop, seed, index, tally) for index in range(count)))
    tally.seconds = asyncio.get_running_loop().time() - start
    return tally


async def _run_client(host: str, port: int, model: str, stop: float, seed: int, index: int, tally: Tally) -> None:
    loop = asyncio.get_running_loop()
    client: _Client | None = None
    for plan in plans(seed, index):
        if loop.time() >= stop:
            break
        if client is None or client.is_lost:
            _, client = await loop.create_connection(_Client, host, port)
        request = _encode(plan, host, model)
        try:
            outcome = await asyncio.wait_for(client.ask(request, plan.leaves_after), _TIMEOUT_SECONDS)
        except TimeoutError:
            outcome = "hung"
        if outcome == "failed" and client.status == 429:
            outcome = "throttled"
        if outcome in ("finished", "left"):
            tally.ids.append(client.request_id)
        elif outcome != "throttled":
            tally.errors.append(f"{outcome}: {client.end[-300:]}")
        tally.outcomes[outcome] += 1
        if outcome not in ("finished", "throttled"):
            assert client.transport is not None
            client.transport.abort()
            client = None
        if outcome == "throttled":
            await asyncio.sleep(1.0)
    if client is not None and client.transport is not None:
        client.transport.close()


def _encode(plan: Plan, host: str, model: str) -> bytes:
    if plan.is_bedrock:
        path = f"/model/{model}/converse-stream"
        body: dict = {
            "messages": [{"role": "user", "content": [{"text": plan.prompt}]}],
            "inferenceConfig": {"maxTokens": plan.max_tokens, "temperature": TEMPERATURE, "topP": TOP_P},
        }
    else:
        path = "/v1/chat/completions"
        body = {"model": model, "stream": True, "max_tokens": plan.max_tokens}
        body |= {"temperature": TEMPERATURE, "top_p": TOP_P}
        body["messages"] = [{"role": "user", "content": plan.prompt}]
    content = json.dumps(body).encode()
    headers = f"host: {host}\r\ncontent-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
    return f"POST {path} HTTP/1.1\r\n{headers}".encode() + content
