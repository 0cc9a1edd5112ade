"""OpenTelemetry traces: a span for each request, and within it one for the queue, the prompt and the answer, or for the
queue and the drawing of pictures.

Spans are made when a request is over, from times noted while it ran, so that they cost nothing per token. Attributes
follow OpenTelemetry's semantic conventions for generative AI; no text of prompts or answers is among them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kilonova.core.errors import ConfigError
from kilonova.serve.call import Call
from kilonova.serve.settings import TelemetrySection

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_OPERATIONS = {"completions": "text_completion", "embeddings": "embeddings"}


class Traces:
    """Hands spans of requests to `provider`, which it shuts down with itself."""

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("kilonova")
        self._propagator = TraceContextTextMapPropagator()
        # What turns `time.perf_counter()` into nanoseconds since the epoch.
        self._epoch = time.time_ns() - time.perf_counter_ns()

    @classmethod
    def from_settings(cls, telemetry: TelemetrySection) -> Traces | None:
        """Sends spans to the collector that the settings name, in the background; None where they name none.

        Raises ConfigError where OpenTelemetry is not installed.
        """
        if telemetry.otlp_endpoint is None:
            return None
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError as error:
            raise ConfigError("telemetry.otlp_endpoint: install it first: pip install 'kilonova[otel]'") from error
        provider = TracerProvider(resource=Resource.create({"service.name": telemetry.service_name}))
        endpoint = telemetry.otlp_endpoint.rstrip("/")
        endpoint = endpoint if endpoint.endswith("/v1/traces") else f"{endpoint}/v1/traces"
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
        return cls(provider)

    def observe_call(self, call: Call) -> None:
        """Make the spans of a request at its end; its trace goes on from the caller's `traceparent`."""
        if not call.operation:
            return
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context

        context = self._propagator.extract(call.trace_headers)
        name = f"{_operation(call)} {call.model}".rstrip()
        span = self._tracer.start_span(
            name,
            context=context,
            kind=SpanKind.SERVER,
            start_time=self._time(call.started),
            attributes=_attributes(call),
        )
        if span.is_recording():
            within = set_span_in_context(span)
            for index, generation in enumerate(call.generations):
                self._add_phases(call, index, generation.progress(), within)
            if call.error:
                span.set_status(Status(StatusCode.ERROR, call.error))
        span.end(self._time(call.started + call.latency))

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()

    def _add_phases(self, call: Call, index: int, progress: Any, context: Any) -> None:
        # Requests are submitted right after they arrive: their engine's times are counted from there.
        start, end = call.submitted or call.started, call.started + call.latency
        admitted = end if progress.queue_time is None else start + progress.queue_time
        first = start + progress.time_to_first_token if progress.time_to_first_token else end
        phases = [("queue", start, admitted)]
        if call.images is not None:
            phases.append(("draw", admitted, end))
        else:
            phases += [("prompt", admitted, first), ("decode", first, end)]
        for name, begin, finish in phases:
            if finish > begin:
                attributes = {"gen_ai.choice.index": index}
                part = self._tracer.start_span(name, context, start_time=self._time(begin), attributes=attributes)
                part.end(self._time(finish))

    def _time(self, seconds: float) -> int:
        return self._epoch + int(seconds * 1e9)


def _operation(call: Call) -> str:
    if call.images is not None:
        return "generate_content"
    return _OPERATIONS.get(call.operation, "chat")


def _attributes(call: Call) -> Mapping[str, Any]:
    attributes: dict[str, Any] = {
        "gen_ai.operation.name": _operation(call),
        "gen_ai.provider.name": "kilonova",
        "http.request.method": call.method,
        "url.path": call.path,
        "http.response.status_code": call.status,
        "kilonova.operation": call.operation,
        "kilonova.request.id": call.id,
    }
    if call.model:
        attributes |= {"gen_ai.request.model": call.model, "gen_ai.response.model": call.model}
    if call.principal.key_id:
        attributes["kilonova.key.id"] = call.principal.key_id
    if call.error:
        attributes["error.type"] = call.error
    if call.images is not None:
        attributes |= {
            "gen_ai.output.type": "image",
            "gen_ai.request.choice.count": call.images.count,
            "kilonova.image.size": call.images.size,
            "kilonova.image.quality": call.images.quality,
        }
    elif call.generations:
        usage = call.usage
        attributes["gen_ai.usage.input_tokens"] = usage.input_tokens
        attributes["gen_ai.usage.output_tokens"] = usage.output_tokens
        reasons = [reason for each in call.generations if (reason := each.progress().stop_reason) is not None]
        attributes["gen_ai.response.finish_reasons"] = reasons
    return attributes
