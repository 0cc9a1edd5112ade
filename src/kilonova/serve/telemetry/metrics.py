"""What a server counts and times, in Prometheus's text format."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from kilonova.serve.call import Call
from kilonova.serve.lifecycle import Lifecycle

if TYPE_CHECKING:
    from kilonova.serve.models import ModelServer

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
_TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.6, 1.2, 2.5, 5.0)
_LAG_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)


class Durations:
    """A histogram of seconds that costs next to nothing to add to; for one thread."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._sum += seconds

    def add_to(self, family: HistogramMetricFamily, labels: list[str]) -> None:
        """Report what was counted as one row of a family."""
        names = [*(str(bound) for bound in self._bounds), "+Inf"]
        family.add_metric(labels, list(zip(names, accumulate(self._counts), strict=True)), self._sum)


class Metrics:
    """The metrics of one server. `observe_call` and what `between_chunks` returns belong to the event loop's thread."""

    def __init__(self, models: ModelServer, lifecycle: Lifecycle) -> None:
        self._models = models
        self._lifecycle = lifecycle
        self.registry = CollectorRegistry()
        self._between_chunks: dict[str, Durations] = {}
        self._lag = Durations(_LAG_SECONDS)
        self._loop_thread: int | None = None

        def counter(name: str, doc: str, *labels: str) -> Counter:
            return Counter(f"kilonova_{name}", doc, labels, registry=self.registry)

        def histogram(name: str, doc: str, *labels: str) -> Histogram:
            return Histogram(f"kilonova_{name}_seconds", doc, labels, buckets=_SECONDS, registry=self.registry)

        self._requests = counter(
            "requests",
            "Requests answered; error is empty where there was none.",
            "operation",
            "model",
            "status",
            "error",
        )
        self._abandoned = counter(
            "requests_abandoned", "Requests whose client went before the end.", "operation", "model"
        )
        self._tokens = counter("tokens", "Tokens of requests that are over.", "model", "kind")
        self._images = counter("images", "Pictures of requests that are over.", "model", "quality", "size")
        self._latency = histogram("request", "From a request's arrival to its last byte.", "operation", "model")
        self._first_token = histogram("time_to_first_token", "From submission to the first token.", "model")
        self._queue = histogram("queue", "Waited for a place in the engine.", "model")
        ProcessCollector(registry=self.registry)
        self.registry.register(_Sampled(self._sample))

    def begin(self) -> None:
        """To be called on the event loop's thread, whose CPU time is reported from now on."""
        self._loop_thread = threading.get_ident()

    def observe_lag(self, seconds: float) -> None:
        """Note how much later than asked the event loop came back."""
        self._lag.observe(seconds)

    def between_chunks(self, model: str) -> Callable[[float], None]:
        """Takes the seconds between two chunks of a stream of `model`."""
        durations = self._between_chunks.get(model)
        if durations is None:
            durations = self._between_chunks[model] = Durations(_TOKEN_SECONDS)
        return durations.observe

    def observe_call(self, call: Call) -> None:
        """Count a request at its end; its operation is empty where it was refused before that was known."""
        if not (call.operation or call.error):
            return
        self._requests.labels(call.operation, call.model, str(call.status), call.error).inc()
        self._latency.labels(call.operation, call.model).observe(call.latency)
        if call.is_abandoned:
            self._abandoned.labels(call.operation, call.model).inc()
        if not call.generations:
            return
        if call.images is not None and call.image_count:
            # By what a picture costs: up to 1024 x 1024 pixels, and more.
            size = "1024" if call.images.pixels <= 1024 * 1024 else "2048"
            self._images.labels(call.model, call.images.quality, size).inc(call.image_count)
        usage = call.usage
        for kind, count in (
            ("input", usage.input_tokens),
            ("output", usage.output_tokens),
            ("cache_read", usage.cache_read_input_tokens),
            ("cache_write", usage.cache_write_input_tokens),
        ):
            if count:
                self._tokens.labels(call.model, kind).inc(count)
        for generation in call.generations:
            progress = generation.progress()
            if progress.queue_time is not None:
                self._queue.labels(call.model).observe(progress.queue_time)
            if progress.time_to_first_token:
                self._first_token.labels(call.model).observe(progress.time_to_first_token)

    def render(self) -> bytes:
        """Everything, as text."""
        return generate_latest(self.registry)

    def _sample(self) -> Iterator[Metric]:
        """What is read from the engines and the event loop when somebody asks."""
        lifecycle = self._lifecycle
        yield GaugeMetricFamily("kilonova_open_requests", "Requests being answered.", value=len(lifecycle.calls))
        stopping = int(lifecycle.is_stopping)
        yield GaugeMetricFamily("kilonova_stopping", "Whether the server was told to stop.", value=stopping)
        chunks = HistogramMetricFamily(
            "kilonova_inter_token_seconds", "Between two chunks of a stream.", labels=["model"]
        )
        for model, durations in list(self._between_chunks.items()):
            durations.add_to(chunks, [model])
        yield chunks
        lag = HistogramMetricFamily("kilonova_event_loop_lag_seconds", "How late the event loop is.", labels=[])
        self._lag.add_to(lag, [])
        yield lag
        if self._loop_thread is not None and hasattr(time, "pthread_getcpuclockid"):
            seconds = time.clock_gettime(time.pthread_getcpuclockid(self._loop_thread))
            yield CounterMetricFamily("kilonova_event_loop_cpu_seconds", "CPU time of the event loop.", value=seconds)
        yield from self._engines()

    def _engines(self) -> Iterator[Metric]:
        def gauge(name: str, doc: str, *labels: str) -> GaugeMetricFamily:
            return GaugeMetricFamily(f"kilonova_engine_{name}", doc, labels=["model", *labels])

        def counter(name: str, doc: str) -> CounterMetricFamily:
            return CounterMetricFamily(f"kilonova_engine_{name}", doc, labels=["model"])

        up = gauge("up", "Whether the engine runs; 0 while it is replaced.")
        running = gauge("running", "Requests that have a place: the batch.")
        waiting = gauge("waiting", "Requests that wait for one: the queue.")
        positions = gauge("kv_tokens", "Tokens of running requests in the cache.")
        blocks = gauge("kv_blocks", "Blocks of the cache that requests hold, kept for reuse, and empty.", "state")
        preemptions = counter("preemptions", "Requests set back for want of blocks.")
        steps = counter("steps", "Steps of the model.")
        step_requests = counter("step_requests", "Requests in all steps: over the steps, the mean batch.")
        step_seconds = counter("step_seconds", "Time inside the model's steps.")
        restarts = counter("restarts", "Replacements of a broken engine.")
        for model, engine in self._models.engines.items():
            stats: Any = engine.stats()
            up.add_metric([model], float(not engine.is_closed))
            running.add_metric([model], stats.running)
            waiting.add_metric([model], stats.waiting)
            positions.add_metric([model], stats.kv_tokens)
            for state in ("used", "cached", "free"):
                blocks.add_metric([model, state], getattr(stats.kv_blocks, state))
            preemptions.add_metric([model], stats.preemptions)
            steps.add_metric([model], stats.steps)
            step_requests.add_metric([model], stats.step_requests)
            step_seconds.add_metric([model], stats.step_seconds)
        for model, studio in self._models.studios.items():
            drawing = studio.stats()
            up.add_metric([model], 1)
            running.add_metric([model], drawing.running)
            waiting.add_metric([model], drawing.waiting)
            steps.add_metric([model], drawing.steps)
            step_seconds.add_metric([model], drawing.step_seconds)
        for model in set(self._models.down) - set(self._models.engines):
            up.add_metric([model], 0)
        for model, count in self._models.restarts.items():
            restarts.add_metric([model], count)
        yield from (up, running, waiting, positions, blocks, preemptions, steps, step_requests, step_seconds, restarts)


class _Sampled(Collector):
    def __init__(self, sample: Callable[[], Iterator[Metric]]) -> None:
        self._sample = sample

    def collect(self) -> Iterator[Metric]:
        return self._sample()

    def describe(self) -> list[Metric]:
        """Nothing, so that registering it reads no engine."""
        return []
