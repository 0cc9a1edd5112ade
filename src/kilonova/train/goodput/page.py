"""A goodput report as one HTML file that needs nothing else."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from html import escape
from pathlib import Path

from kilonova.core.page import html_page
from kilonova.train.goodput.report import CLASSES, GoodputReport
from kilonova.train.goodput.table import duration, headline

_COLOURS = {
    "compute": "#2e8b57",
    "communication": "#8fbc8f",
    "data_wait": "#b8d8a8",
    "checkpoint": "#4a78b5",
    "evaluation": "#9bb8dd",
    "lost": "#c0392b",
    "detect": "#e67e22",
    "restart": "#e8a33d",
    "import": "#f3c969",
    "rendezvous": "#d9b25f",
    "build": "#c9a227",
    "compile": "#a78bba",
    "restore": "#7d5ba6",
    "export": "#7f8c8d",
    "idle": "#c8ccd0",
}
_WIDTH = 940
_LEFT = 64

_STYLE = """
i { display: inline-block; width: 12px; height: 12px; border-radius: 2px; margin-right: 8px; }
svg { display: block; max-width: 100%; height: auto; } svg text { font: 12px system-ui, sans-serif; fill: #5b666e; }
"""


def report_page(run: Path, report: GoodputReport) -> str:
    """The page for the run in folder `run`: figures, a bar and a timeline of the classes, curves of the log, ranks."""
    tiles = "".join(f"<div><b>{escape(value)}</b><span>{name}</span></div>" for name, value in headline(report).items())
    sections = [
        f'<div class="figures">{tiles}</div>',
        "<h2>Where the time went</h2>" + _classes(report),
        "<h2>When</h2>" + _timeline(report),
    ]
    records = _log(run)
    curves = (("loss", "Loss"), ("tokens_per_second", "Tokens a second"), ("grad_norm", "Gradient norm"))
    for name, title in curves:
        points = [(record["step"], record[name]) for record in records if name in record]
        if len(points) > 1:
            sections.append(f"<h2>{title}</h2>" + _curve(points))
    if len(report.ranks) > 1:
        sections.append("<h2>Ranks</h2>" + _ranks(report))
    return html_page(f"Run {escape(str(run))}", sections, _STYLE)


def _classes(report: GoodputReport) -> str:
    found = [(name, seconds) for name, seconds in report.seconds.items() if seconds]
    bars, x = [], 0.0
    for name, seconds in found:
        width = _WIDTH * seconds / report.wall
        bars.append(_rectangle(x, 0, width, 28, name, f"{name}: {duration(seconds)}"))
        x += width
    rows = "".join(
        f'<tr><td><i style="background:{_COLOURS[name]}"></i>{name}</td><td class="n">{duration(seconds)}</td>'
        f'<td class="n">{seconds / report.wall:.2%}</td><td>{CLASSES[name]}</td></tr>'
        for name, seconds in found
    )
    return _svg(28, bars) + f"<table style='margin-top:12px'>{rows}</table>"


def _timeline(report: GoodputReport) -> str:
    """The classes over time; what is narrower than a quarter of a pixel is left out of the picture, not of the sums."""
    end = max(start + length for start, length, _ in report.timeline)
    scale = _WIDTH / end
    bars = [
        _rectangle(start * scale, 0, length * scale, 28, name, f"{name} at {duration(start)}: {duration(length)}")
        for start, length, name in report.timeline
        if length * scale > 0.25
    ]
    labels = [
        f'<text x="{part * _WIDTH:.0f}" y="46" text-anchor="{anchor}">{duration(part * end)}</text>'
        for part, anchor in ((0, "start"), (0.25, "middle"), (0.5, "middle"), (0.75, "middle"), (1, "end"))
    ]
    return _svg(52, bars + labels)


def _curve(points: Sequence[tuple[float, float]]) -> str:
    points = [(x, y) for x, y in points if math.isfinite(y)]
    height, plot_width = 180, _WIDTH - _LEFT
    first, last = points[0][0], max(x for x, _ in points)
    low, high = min(y for _, y in points), max(y for _, y in points)
    x_scale = plot_width / ((last - first) or 1)
    y_scale = (height - 30) / ((high - low) or 1)
    # A replayed stretch goes back in steps; it is drawn as what it is, a second line.
    lines: list[list[str]] = [[]]
    before = -math.inf
    for x, y in points:
        if x <= before:
            lines.append([])
        lines[-1].append(f"{_LEFT + (x - first) * x_scale:.1f},{10 + (high - y) * y_scale:.1f}")
        before = x
    shapes = [
        f'<polyline points="{" ".join(line)}" fill="none" stroke="#2e8b57" stroke-width="1.5"/>' for line in lines
    ]
    for part in (0.0, 0.5, 1.0):
        y = 10 + part * (height - 30)
        shapes.append(f'<line x1="{_LEFT}" x2="{_WIDTH}" y1="{y}" y2="{y}" stroke="#e4e7ea"/>')
        label = f"{high - part * (high - low):.4g}"
        shapes.append(f'<text x="{_LEFT - 8}" y="{y + 4}" text-anchor="end">{label}</text>')
    shapes.append(f'<text x="{_LEFT}" y="{height - 4}">step {first:.0f}</text>')
    shapes.append(f'<text x="{_WIDTH}" y="{height - 4}" text-anchor="end">step {last:.0f}</text>')
    return _svg(height, shapes)


def _ranks(report: GoodputReport) -> str:
    rows = "".join(
        f'<tr><td>{rank}</td><td class="n">{duration(times["median"])}</td><td class="n">{duration(times["p95"])}</td>'
        f'<td class="n">{times["waiting"]:.1%}</td></tr>'
        for rank, times in report.ranks.items()
        if times
    )
    heads = "".join(f"<th>{name}</th>" for name in ("rank", "median step", "95th percentile", "waiting for others"))
    return f"<table><tr>{heads}</tr>{rows}</table>"


def _rectangle(x: float, y: float, width: float, height: float, name: str, hint: str) -> str:
    shape = f'x="{x:.2f}" y="{y}" width="{width:.2f}" height="{height}" fill="{_COLOURS[name]}"'
    return f"<rect {shape}><title>{escape(hint)}</title></rect>"


def _svg(height: int, shapes: Sequence[str]) -> str:
    return f'<svg viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}">{"".join(shapes)}</svg>'


def _log(run: Path) -> list[dict]:
    path = run / "log.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
