"""What one request, one client and all of them together may take; and what is counted, logged and traced of them."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from botocore.exceptions import ClientError, EventStreamError
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from tests.serve.conftest import Server

from kilonova.engine.config import EngineConfig
from kilonova.engine.runner import ModelRunner
from kilonova.models.registry import Registry
from kilonova.serve.app import create_app
from kilonova.serve.connection import Connection
from kilonova.serve.generation import StreamedResponse
from kilonova.serve.lifecycle import Lifecycle
from kilonova.serve.middleware import CallMiddleware
from kilonova.serve.models import ModelServer
from kilonova.serve.settings import LimitsSection
from kilonova.serve.telemetry.logs import JSONFormatter
from kilonova.serve.telemetry.traces import Traces

SECRET = "sesame"
TRACE = "0af7651916cd43dd8448eb211c80319c"
LIMITS = LimitsSection(
    max_body_bytes=2000,
    max_header_bytes=4000,
    max_concurrent_requests=6,
    request_seconds=2.0,
    queue_seconds=0.5,
    receive_seconds=0.6,
    write_seconds=0.5,
)


@contextmanager
def running(app: Any, limits: LimitsSection) -> Iterator[Server]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        http: Any = partial(Connection, limits=limits)
        config = uvicorn.Config(app, http=http, log_config=None, lifespan="on", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        deadline = time.monotonic() + 30
        while not server.started:
            assert thread.is_alive()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        try:
            yield Server(f"http://127.0.0.1:{listener.getsockname()[1]}")
        finally:
            server.should_exit = True
            thread.join(timeout=20)


class Watched:
    """A server of a model whose steps take 30 ms, and what it has logged and traced."""

    def __init__(self, server: Server, spans: InMemorySpanExporter, records: list[logging.LogRecord]) -> None:
        self.server = server
        self.spans = spans
        self.records = records

    def metrics(self) -> str:
        import urllib.request

        with urllib.request.urlopen(f"{self.server.url}/metrics", timeout=10) as response:
            return response.read().decode()


@pytest.fixture(scope="module")
def watched(tiny_micro_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    step = ModelRunner.step

    def slow(self: ModelRunner, tokens: Any) -> Any:
        time.sleep(0.03)
        return step(self, tokens)

    registry = Registry({"tiny": tiny_micro_directory}, home=tmp_path_factory.mktemp("home"))
    models = ModelServer(registry, EngineConfig(max_num_seqs=4, speculate=False))
    models.load(registry.get("tiny"))
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    access = logging.getLogger("kilonova.access")
    access.addHandler(handler)
    access.setLevel(logging.INFO)
    app = create_app(models, lifecycle=Lifecycle(LIMITS), observers=[Traces(provider).observe_call])
    with pytest.MonkeyPatch.context() as patch, running(app, LIMITS) as server:
        patch.setattr(ModelRunner, "step", slow)
        yield Watched(server, spans, records)
    access.removeHandler(handler)


def completion(server: Server, **more: Any) -> tuple[int, dict[str, str], Any]:
    body = {"model": "tiny", "prompt": f"the quick {SECRET}", "max_tokens": 450, "temperature": 0, **more}
    if not body.get("stream"):
        return server.post("/v1/completions", body)
    import urllib.request

    request = urllib.request.Request(
        f"{server.url}/v1/completions",
        data=json.dumps(body).encode(),
        headers={"content-type": "application/json", "traceparent": f"00-{TRACE}-b7ad6b7169203331-01"},
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        return response.status, dict(response.headers), response.read()


def converse(server: Server) -> str:
    try:
        server.boto3("bedrock-runtime").converse(**conversation())
    except ClientError as error:
        return f"{error.response['ResponseMetadata']['HTTPStatusCode']} {error.response['Error']['Code']}"
    return "answered"


def converse_stream(server: Server) -> str:
    events = 0
    try:
        for _ in server.boto3("bedrock-runtime").converse_stream(**conversation())["stream"]:
            events += 1
    except EventStreamError as error:
        return f"{'some' if events else 'no'} events, {error.response['Error']['Code']}"
    return "answered"


def conversation() -> dict[str, Any]:
    messages = [{"role": "user", "content": [{"text": f"go on {SECRET}"}]}]
    return {"modelId": "tiny", "messages": messages, "inferenceConfig": {"maxTokens": 450, "temperature": 0}}


def in_threads(tasks: dict[str, Callable[[], Any]]) -> tuple[list[threading.Thread], dict[str, Any]]:
    results: dict[str, Any] = {}

    def run(name: str, task: Callable[[], Any]) -> None:
        results[name] = task()

    threads = [threading.Thread(target=run, args=each, daemon=True) for each in tasks.items()]
    for thread in threads:
        thread.start()
    return threads, results


def wait_for(server: Server, **counts: int) -> None:
    deadline = time.monotonic() + 20
    while any(server.health()["models"]["tiny"][name] != count for name, count in counts.items()):
        assert time.monotonic() < deadline, server.health()
        time.sleep(0.01)


def test_requests_that_take_too_long_wait_too_long_or_are_too_many(watched: Watched) -> None:
    server = watched.server
    server.boto3("bedrock-runtime")
    threads, ran = in_threads(
        {
            "whole": lambda: completion(server),
            "stream": lambda: completion(server, stream=True),
            "converse": lambda: converse(server),
            "converse stream": lambda: converse_stream(server),
        }
    )
    wait_for(server, running=4)
    more, waited = in_threads({"whole": lambda: completion(server), "converse": lambda: converse(server)})
    wait_for(server, waiting=2)
    refused = completion(server)
    for thread in (*threads, *more):
        thread.join(timeout=30)

    assert refused[0] == 429
    assert refused[2]["error"]["code"] == "rate_limit_exceeded"
    assert int(refused[1]["retry-after"]) >= 1
    assert waited["whole"][0] == 429
    assert "waited longer than 0.5 seconds" in waited["whole"][2]["error"]["message"]
    assert int(waited["whole"][1]["retry-after"]) >= 1
    assert waited["converse"] == "429 ThrottlingException"
    assert (ran["whole"][0], ran["whole"][2]["error"]["code"]) == (408, "request_timeout")
    assert ran["converse"] == "408 ModelTimeoutException"
    assert ran["converse stream"] == "some events, modelStreamErrorException"
    events = ran["stream"][2].decode().strip().split("\n\n")
    assert events[-1] == "data: [DONE]"
    assert "request_timeout" in events[-2]
    wait_for(server, running=0, waiting=0)


def test_what_happened_is_counted_logged_and_traced_without_any_text(watched: Watched) -> None:
    before = len(watched.records)
    status, _, body = completion(watched.server, stream=True, max_tokens=8)
    assert status == 200
    deadline = time.monotonic() + 5
    while not any("8 tokens" in record.getMessage() for record in watched.records[before:]):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    metrics = watched.metrics()
    for line in (
        'kilonova_requests_total{error="",model="tiny",operation="completions",status="200"}',
        'kilonova_engine_kv_blocks{model="tiny",state="used"} 0.0',
        'kilonova_engine_up{model="tiny"} 1.0',
        "kilonova_open_requests 1.0",
        'kilonova_time_to_first_token_seconds_count{model="tiny"}',
        "kilonova_event_loop_lag_seconds_count",
        "kilonova_event_loop_cpu_seconds_total",
        "process_resident_memory_bytes",
    ):
        assert line in metrics, line
    samples = {
        name: float(value)
        for name, _, value in (line.rpartition(" ") for line in metrics.splitlines() if not line.startswith("#"))
    }
    assert samples['kilonova_tokens_total{kind="output",model="tiny"}'] >= 8
    chunks = body.count(b"data: ")
    assert samples['kilonova_inter_token_seconds_count{model="tiny"}'] >= chunks - 2
    buckets = [value for name, value in samples.items() if name.startswith("kilonova_inter_token_seconds_bucket")]
    assert buckets == sorted(buckets)
    assert buckets[-1] == samples['kilonova_inter_token_seconds_count{model="tiny"}']
    steps, busy = (samples[f'kilonova_engine_{name}_total{{model="tiny"}}'] for name in ("steps", "step_seconds"))
    assert busy >= 0.03 * steps > 0

    lines = [JSONFormatter().format(record) for record in watched.records]
    last = next(line for line in map(json.loads, reversed(lines)) if line.get("operation") == "completions")
    assert last["status"] == 200
    assert last["model"] == "tiny"
    assert last["output_tokens"] == 8
    assert len(last["request_id"]) == 36
    assert last["first_token_ms"] > 0

    spans = watched.spans.get_finished_spans()
    (root,) = [
        span
        for span in spans
        if span.kind.name == "SERVER" and (span.attributes or {}).get("kilonova.request.id") == last["request_id"]
    ]
    assert root.name == "text_completion tiny"
    assert format(root.context.trace_id, "032x") == TRACE
    assert root.parent is not None
    attributes = dict(root.attributes or {})
    assert attributes["gen_ai.request.model"] == "tiny"
    assert attributes["gen_ai.usage.output_tokens"] == 8
    assert attributes["gen_ai.response.finish_reasons"] == ("max_tokens",)
    parts = {span.name: span for span in spans if span.parent and span.parent.span_id == root.context.span_id}
    assert {"prompt", "decode"} <= set(parts) <= {"queue", "prompt", "decode"}
    assert parts["prompt"].end_time == parts["decode"].start_time
    assert root.start_time <= parts["prompt"].start_time < parts["decode"].end_time <= root.end_time
    failed = [span for span in spans if span.status.status_code.name == "ERROR"]
    assert {(span.attributes or {})["error.type"] for span in failed} >= {"request_timeout", "rate_limit_exceeded"}
    told = metrics + "".join(lines) + "".join(span.to_json() for span in spans)
    assert SECRET not in told


def test_long_bodies_and_bodies_that_do_not_come(watched: Watched) -> None:
    status, _, body = completion(watched.server, prompt="x" * 3000)
    assert (status, body["error"]["code"]) == (413, "request_too_large")
    with connect(watched.server) as client:
        client.sendall(b"POST /v1/completions HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 100\r\n\r\n{")
        answer = read(client)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"request_timeout" in answer


def test_heads_that_are_long_or_do_not_come(watched: Watched) -> None:
    with connect(watched.server) as client:
        client.sendall(b"GET /health HTTP/1.1\r\nhost: a\r\n")
        assert client.recv(65536) == b""
    for pieces in (1, 5):
        with connect(watched.server) as client:
            client.sendall(b"GET /health HTTP/1.1\r\n")
            for index in range(pieces):
                client.sendall(b"x-%d: " % index + b"y" * (5000 // pieces) + b"\r\n")
                time.sleep(0.02)
            assert client.recv(65536).startswith(b"HTTP/1.1 431 ")
    with connect(watched.server) as client:
        for _ in range(2):
            client.sendall(b"GET /health/live HTTP/1.1\r\nhost: a\r\n\r\n")
            assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
        # Nothing more comes: only the keep-alive time ends it.
        client.settimeout(1.0)
        with pytest.raises(TimeoutError):
            client.recv(1)


def test_a_body_that_nobody_wants_is_not_taken_for_a_head(watched: Watched) -> None:
    with connect(watched.server) as client:
        client.sendall(b"POST /nothing HTTP/1.1\r\nhost: a\r\ncontent-length: 20000\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 404 ")
        client.sendall(b"x" * 20000)
        time.sleep(0.1)
        client.sendall(b"GET /health/live HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        assert b"HTTP/1.1 200 OK" in read(client)


def test_a_client_that_does_not_read_is_dropped_and_holds_up_nobody() -> None:
    ended = threading.Event()
    written = 0

    async def endless() -> AsyncGenerator[bytes, None]:
        nonlocal written
        try:
            while True:
                written += 1_000_000
                yield b"x" * 1_000_000
                await asyncio.sleep(0)
        finally:
            ended.set()

    async def stream(request: Request) -> Response:
        return StreamedResponse(endless(), [], media_type="text/plain")

    async def short(request: Request) -> Response:
        return PlainTextResponse("short")

    middleware = [Middleware(CallMiddleware, Lifecycle(LIMITS), [])]
    app = Starlette(routes=[Route("/stream", stream), Route("/short", short)], middleware=middleware)
    with running(app, LIMITS) as server:
        with connect(server) as client:
            client.sendall(b"GET /stream HTTP/1.1\r\nhost: a\r\n\r\n")
            client.recv(100)
            with connect(server) as other:
                other.sendall(b"GET /short HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
                assert read(other).endswith(b"short")
            assert ended.wait(timeout=10)
        assert written < 50_000_000


def read(client: socket.socket) -> bytes:
    """All that comes until the connection is closed."""
    received = b""
    while data := client.recv(65536):
        received += data
    return received


def connect(server: Server) -> socket.socket:
    host, _, port = server.url.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=10)
