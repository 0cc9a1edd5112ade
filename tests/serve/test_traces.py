"""Traces reach a collector over HTTP."""

from __future__ import annotations

import gzip
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from kilonova.core.types import Usage
from kilonova.engine.generation import Progress
from kilonova.serve.call import Call, ImageOrder
from kilonova.serve.settings import TelemetrySection
from kilonova.serve.telemetry.traces import Traces


def test_spans_are_sent_to_the_collector_that_the_settings_name() -> None:
    received: list[tuple[str, bytes]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            body = gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body
            received.append((self.path, body))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{collector.server_port}/"
        traces = Traces.from_settings(TelemetrySection(otlp_endpoint=endpoint, service_name="here"))
        assert traces is not None
        before = time.time_ns()
        call = Call(id="1", started=time.perf_counter(), method="POST", path="/v1/chat/completions")
        call.operation, call.model, call.status, call.latency = "chat.completions", "micro", 200, 0.5
        traces.observe_call(call)
        traces.close()
        collector.shutdown()

    ((path, body),) = received
    assert path == "/v1/traces"
    (resource,) = ExportTraceServiceRequest.FromString(body).resource_spans
    assert "here" in {attribute.value.string_value for attribute in resource.resource.attributes}
    (span,) = resource.scope_spans[0].spans
    assert span.name == "chat micro"
    assert span.end_time_unix_nano - span.start_time_unix_nano == 500_000_000
    assert abs(span.start_time_unix_nano - before) < 1e9


def test_pictures_have_spans_of_their_own() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    call = Call(id="1", started=time.perf_counter(), method="POST", path="/model/canvas/invoke")
    call.operation, call.model, call.status, call.latency = "InvokeModel", "canvas", 200, 2.0
    call.images = ImageOrder(count=2, width=512, height=320, premium=True)
    progress = Progress(Usage(0, 0), 0.0, "end_turn", 0.5)
    call.generations.append(SimpleNamespace(progress=lambda: progress))  # type: ignore[arg-type]
    Traces(provider).observe_call(call)
    queue, draw, span = exporter.get_finished_spans()
    assert (queue.name, draw.name, span.name) == ("queue", "draw", "generate_content canvas")
    assert draw.end_time - draw.start_time == 1_500_000_000
    assert span.attributes["gen_ai.output.type"] == "image"
    assert (span.attributes["kilonova.image.size"], span.attributes["kilonova.image.quality"]) == ("512x320", "premium")
    assert "gen_ai.usage.input_tokens" not in span.attributes


def test_there_are_none_without_a_collector() -> None:
    assert Traces.from_settings(TelemetrySection()) is None
