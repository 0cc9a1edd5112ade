"""The figures of a load measurement: percentiles, rates, costs, and ratios between endpoints."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from kilonova.evals.latency.endpoint import EndpointError
from kilonova.evals.latency.load import LoadConfig, Measured, Run

PERCENTILES = (50, 95, 99)

Percentiles = Mapping[str, float]


@dataclass(frozen=True)
class Measure:
    """A figure in which endpoints are compared: its title, whether more of it is better, and the figure of a run."""

    title: str
    more_is_better: bool
    of: Callable[[Run], float | None]


@dataclass(frozen=True, kw_only=True)
class Level:
    """The figures of one target at one concurrency: percentiles over the requests of all repeats, times in ms.

    `inter_token_ms` is between two events of one answer, `token_ms` the mean of an answer's tokens after the first;
    they differ where an event carries several tokens (`tokens_per_event`). Rates of tokens are of all clients
    together, medians of the repeats; `prefill_tokens_per_s` is the median over requests of input tokens by the time
    to the first. Costs are for a million tokens, all of the machine's price on the output, or on input and output.
    """

    concurrency: int
    requests: int
    refused: int
    last_refusal: str | None
    seconds: float
    input_tokens: tuple[int, int]
    output_tokens: tuple[int, int]
    tokens_per_event: float
    first_token_ms: Percentiles
    inter_token_ms: Percentiles | None
    token_ms: Percentiles | None
    total_ms: Percentiles
    prefill_tokens_per_s: float
    output_tokens_per_s: float
    total_tokens_per_s: float
    requests_per_s: float
    cost_per_million_output_tokens: float | None
    cost_per_million_tokens: float | None


@dataclass(frozen=True, kw_only=True)
class TargetReport:
    """One endpoint's levels, and how it was asked."""

    name: str
    protocol: str
    url: str
    model: str
    counted_by: str
    settings: Mapping[str, Any]
    price_per_hour: float | None
    levels: tuple[Level, ...]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A measure of the first target and of another, as medians of the repeats' own.

    `ratio` is the median over repeats of other / first within a repeat, `least` and `most` its range.
    """

    concurrency: int
    measure: str
    first: str
    other: str
    first_value: float
    other_value: float
    ratio: float
    least: float
    most: float


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """Everything that was measured; `gaps` holds, by target, all times between events at the lowest concurrency."""

    config: LoadConfig
    targets: tuple[TargetReport, ...]
    comparisons: tuple[Comparison, ...]
    gaps: Mapping[str, tuple[float, ...]]

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it, without the single gaps."""
        tree = asdict(self)
        del tree["gaps"]
        return tree


def first_token_ms(run: Run) -> float | None:
    """Median time to the first text."""
    return _median([1000 * reply.arrivals[0] for reply in run.replies if reply.arrivals])


def inter_token_ms(run: Run, percentile: float = 50) -> float | None:
    """A percentile of the times between events."""
    gaps = _gaps(run)
    return float(np.percentile(gaps, percentile)) if gaps else None


MEASURES = {
    "first_token_ms": Measure("time to first token, ms", False, first_token_ms),
    "inter_token_ms": Measure("inter-token latency, ms", False, inter_token_ms),
    "inter_token_p95_ms": Measure("inter-token latency p95, ms", False, lambda run: inter_token_ms(run, 95)),
    "total_ms": Measure("total time, ms", False, lambda run: _median([1000 * reply.total for reply in run.replies])),
    "prefill_tokens_per_s": Measure("prefill, tokens/s", True, lambda run: _median(_prefill(run))),
    "output_tokens_per_s": Measure("output, tokens/s", True, lambda run: _output_tokens(run) / run.seconds),
}


def summarise(measured: Sequence[Measured], config: LoadConfig) -> LoadReport:
    """The report of what `measure` returned; the first target is the one that others are compared with."""
    targets = tuple(
        TargetReport(
            name=one.target.name,
            protocol=one.target.protocol,
            url=one.target.url,
            model=one.target.model,
            counted_by=one.counted_by,
            settings=dict(one.target.endpoint.settings),
            price_per_hour=one.target.price_per_hour,
            levels=tuple(_level(number, runs, one.target.price_per_hour) for number, runs in one.runs.items()),
        )
        for one in measured
    )
    first, *others = measured
    comparisons = [
        comparison
        for concurrency in config.concurrency
        for other in others
        for name in MEASURES
        if (comparison := _compare(first, other, concurrency, name)) is not None
    ]
    lowest = min(config.concurrency)
    gaps = {one.target.name: tuple(gap for run in one.runs[lowest] for gap in _gaps(run)) for one in measured}
    return LoadReport(config=config, targets=targets, comparisons=tuple(comparisons), gaps=gaps)


def _level(concurrency: int, runs: Sequence[Run], price_per_hour: float | None) -> Level:
    replies = [reply for run in runs for reply in run.replies]
    with_text = [reply for reply in replies if reply.arrivals]
    if not with_text:
        raise EndpointError(f"none of the {len(replies)} answers has any text: there is nothing to time")
    refusals = [refusal for run in runs for refusal in run.refusals]
    inputs = [reply.input_tokens or 0 for reply in replies]
    outputs = [reply.output_tokens or 0 for reply in replies]
    token_ms = [
        1000 * (reply.arrivals[-1] - reply.arrivals[0]) / (reply.output_tokens - 1)
        for reply in with_text
        if reply.output_tokens is not None and reply.output_tokens > 1 and len(reply.arrivals) > 1
    ]
    gaps = [gap for run in runs for gap in _gaps(run)]
    output_rate = statistics.median(_output_tokens(run) / run.seconds for run in runs)
    total_rate = statistics.median((_input_tokens(run) + _output_tokens(run)) / run.seconds for run in runs)
    return Level(
        concurrency=concurrency,
        requests=len(replies),
        refused=len(refusals),
        last_refusal=refusals[-1] if refusals else None,
        seconds=sum(run.seconds for run in runs),
        input_tokens=(min(inputs), max(inputs)),
        output_tokens=(min(outputs), max(outputs)),
        tokens_per_event=sum(outputs) / sum(len(reply.arrivals) for reply in replies),
        first_token_ms=_percentiles([1000 * reply.arrivals[0] for reply in with_text]),
        inter_token_ms=_percentiles(gaps) if gaps else None,
        token_ms=_percentiles(token_ms) if token_ms else None,
        total_ms=_percentiles([1000 * reply.total for reply in replies]),
        prefill_tokens_per_s=statistics.median(rate for run in runs for rate in _prefill(run)),
        output_tokens_per_s=output_rate,
        total_tokens_per_s=total_rate,
        requests_per_s=statistics.median(len(run.replies) / run.seconds for run in runs),
        cost_per_million_output_tokens=_cost(price_per_hour, output_rate),
        cost_per_million_tokens=_cost(price_per_hour, total_rate),
    )


def _compare(first: Measured, other: Measured, concurrency: int, name: str) -> Comparison | None:
    of = MEASURES[name].of
    pairs = [
        (mine, theirs)
        for a, b in zip(first.runs[concurrency], other.runs[concurrency], strict=True)
        if (mine := of(a)) and (theirs := of(b))
    ]
    if not pairs:
        return None
    ratios = [theirs / mine for mine, theirs in pairs]
    return Comparison(
        concurrency=concurrency,
        measure=name,
        first=first.target.name,
        other=other.target.name,
        first_value=statistics.median(mine for mine, _ in pairs),
        other_value=statistics.median(theirs for _, theirs in pairs),
        ratio=statistics.median(ratios),
        least=min(ratios),
        most=max(ratios),
    )


def _gaps(run: Run) -> list[float]:
    """Times between neighbouring events of an answer, in ms."""
    return [1000 * float(gap) for reply in run.replies for gap in np.diff(reply.arrivals)]


def _prefill(run: Run) -> list[float]:
    return [(reply.input_tokens or 0) / reply.arrivals[0] for reply in run.replies if reply.arrivals]


def _input_tokens(run: Run) -> int:
    return sum(reply.input_tokens or 0 for reply in run.replies)


def _output_tokens(run: Run) -> int:
    return sum(reply.output_tokens or 0 for reply in run.replies)


def _percentiles(values: Sequence[float]) -> dict[str, float]:
    found = {f"p{percent}": float(np.percentile(values, percent)) for percent in PERCENTILES}
    return {"mean": statistics.fmean(values), **found}


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def _cost(price_per_hour: float | None, tokens_per_s: float) -> float | None:
    return None if price_per_hour is None or not tokens_per_s else price_per_hour / (3600 * tokens_per_s) * 1e6
