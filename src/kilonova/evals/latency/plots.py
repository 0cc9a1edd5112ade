"""Pictures of a load report."""

from __future__ import annotations

import io

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kilonova.evals.latency.report import LoadReport

_COLOURS = ("#2f6db3", "#e08b2c", "#3f9c6b", "#7d5ba6", "#c0392b", "#7f8c8d")


def draw_throughput(report: LoadReport) -> bytes:
    """One picture (PNG): output tokens a second and total time against the number of clients."""
    figure, (rate, total) = _figure(2)
    for target, colour in zip(report.targets, _cycle(report), strict=True):
        numbers = [level.concurrency for level in target.levels]
        values = [level.output_tokens_per_s for level in target.levels]
        rate.plot(numbers, values, "o-", color=colour, label=target.name)
        _band(total, report, target.name, "total_ms", colour)
    rate.set(title="Throughput", ylabel="output tokens/s, all clients")
    total.set(title="Total time of a request (p50; band to p95)", ylabel="ms")
    return _png(figure, report, over_clients=(rate, total))


def draw_latency(report: LoadReport) -> bytes:
    """One picture (PNG): time to first token, and between tokens, against the number of clients; their distribution."""
    figure, (first, between, distribution) = _figure(3)
    for target, colour in zip(report.targets, _cycle(report), strict=True):
        _band(first, report, target.name, "first_token_ms", colour)
        _band(between, report, target.name, "inter_token_ms", colour)
        gaps = np.sort(report.gaps[target.name])
        if len(gaps):
            shares = 100 * np.arange(1, len(gaps) + 1) / len(gaps)
            distribution.step(gaps, shares, where="post", color=colour, label=target.name)
    first.set(title="Time to first token (p50; band to p95)", ylabel="ms")
    between.set(title="Inter-token latency (p50; band to p95)", ylabel="ms")
    lowest = min(report.config.concurrency)
    distribution.set(title=f"Inter-token latency, {lowest} at a time", xlabel="ms", ylabel="share (%)")
    return _png(figure, report, over_clients=(first, between))


def _band(axis: Axes, report: LoadReport, name: str, measure: str, colour: str) -> None:
    target = next(one for one in report.targets if one.name == name)
    found = [(level.concurrency, getattr(level, measure)) for level in target.levels]
    points = [(concurrency, values["p50"], values["p95"]) for concurrency, values in found if values is not None]
    if not points:
        return
    numbers, middle, high = zip(*points, strict=True)
    axis.plot(numbers, middle, "o-", color=colour, label=name)
    axis.fill_between(numbers, middle, high, color=colour, alpha=0.15, linewidth=0)


def _cycle(report: LoadReport) -> list[str]:
    return [_COLOURS[index % len(_COLOURS)] for index in range(len(report.targets))]


def _figure(columns: int) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(5.6 * columns, 4.2), layout="constrained", dpi=110)
    return figure, list(figure.subplots(1, columns))


def _clients(axis: Axes, report: LoadReport) -> None:
    numbers = sorted(report.config.concurrency)
    axis.set_xscale("log", base=2)
    axis.set_xticks(numbers, [str(number) for number in numbers])
    axis.minorticks_off()
    axis.set_xlabel("requests at a time")


def _png(figure: Figure, report: LoadReport, over_clients: tuple[Axes, ...]) -> bytes:
    for axis in over_clients:
        _clients(axis, report)
    for axis in figure.axes:
        axis.set_ylim(bottom=0)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", color="#e4e7ea")
        axis.title.set_fontweight("bold")
    if len(report.targets) > 1:
        figure.axes[0].legend(frameon=False)
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()
