"""Traces reach a collector over HTTP."""

from __future__ import annotations

import gzip
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from kilonova.serve.call import Call
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


def test_there_are_none_without_a_collector() -> None:
    assert Traces.from_settings(TelemetrySection()) is None
