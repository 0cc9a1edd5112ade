"""A load report as a folder: one HTML file that needs nothing else, its pictures, and the figures as JSON."""

from __future__ import annotations

import base64
import json
from html import escape
from pathlib import Path

from kilonova.core.files import write_atomic
from kilonova.core.page import html_page
from kilonova.evals.latency.plots import draw_latency, draw_throughput
from kilonova.evals.latency.report import MEASURES, LoadReport, TargetReport
from kilonova.evals.latency.tables import figures, notes, number, rates, verdict

_STYLE = """
tr.first td { border-top: 1px solid #dde1e4; } img { display: block; max-width: 100%; height: auto; }
"""


def write_report(directory: Path, report: LoadReport) -> None:
    """Write `report.html`, `throughput.png`, `latency.png` and `report.json`, each whole or not at all."""
    pictures = {"throughput.png": draw_throughput(report), "latency.png": draw_latency(report)}
    write_atomic(directory / "report.json", json.dumps(report.to_dict(), indent=1) + "\n")
    for name, picture in pictures.items():
        write_atomic(directory / name, picture)
    write_atomic(directory / "report.html", report_page(report, pictures))


def report_page(report: LoadReport, pictures: dict[str, bytes]) -> str:
    """The page: figures of the lowest concurrency, pictures (PNG by name), tables, and how it was measured."""
    config = report.config
    title = f"{config.input_tokens:,} tokens in, {config.output_tokens:,} out"
    sections = [_tiles(target) for target in report.targets]
    for name, picture in pictures.items():
        data = base64.b64encode(picture).decode()
        sections.append(f'<h2>{name.split(".")[0].title()}</h2><img alt="{name}" src="data:image/png;base64,{data}">')
    if report.comparisons:
        sections.append(f"<h2>Against {escape(report.targets[0].name)}</h2>" + _comparisons(report))
    sections += [f"<h2>{escape(target.name)}</h2>" + _levels(target) for target in report.targets]
    sections.append("<h2>How it was measured</h2>" + _method(report))
    return html_page(title, sections, _STYLE)


def _tiles(target: TargetReport) -> str:
    level = min(target.levels, key=lambda level: level.concurrency)
    most = max(target.levels, key=lambda level: level.output_tokens_per_s)
    tiles = [("time to first token, p50", f"{number(level.first_token_ms['p50'])} ms")]
    if level.inter_token_ms is not None:
        tiles.append(("inter-token latency, p50", f"{number(level.inter_token_ms['p50'])} ms"))
    tiles += [
        ("total time, p50", f"{number(level.total_ms['p50'])} ms"),
        ("prefill, tokens/s", number(level.prefill_tokens_per_s)),
        (f"output tokens/s, {most.concurrency} at a time", number(most.output_tokens_per_s)),
    ]
    if most.cost_per_million_output_tokens is not None:
        tiles.append(("a million output tokens", number(most.cost_per_million_output_tokens)))
    shown = "".join(f"<div><b>{value}</b><span>{name}</span></div>" for name, value in tiles)
    return f'<h2>{escape(target.name)}, {level.concurrency} at a time</h2><div class="figures">{shown}</div>'


def _levels(target: TargetReport) -> str:
    heads = "".join(f'<th class="n">{name}</th>' for name in ("mean", "p50", "p95", "p99"))
    rows = []
    for level in target.levels:
        cells = [(title, values) for title, values in figures(level)] + [(t, [value]) for t, value in rates(level)]
        for index, (title, values) in enumerate(cells):
            shown = "".join(f'<td class="n">{value}</td>' for value in values)
            number_cell = f'<tr class="first"><td>{level.concurrency}</td>' if index == 0 else "<tr><td></td>"
            rows.append(f"{number_cell}<td>{title}</td>{shown}</tr>")
    return f"<table><tr><th>at a time</th><th>measure</th>{heads}</tr>{''.join(rows)}</table>"


def _comparisons(report: LoadReport) -> str:
    names = ("at a time", "measure", "endpoint", "first", "this", "ratio", "range over repeats", "")
    rows = [
        f"<tr><td>{one.concurrency}</td><td>{MEASURES[one.measure].title}</td><td>{escape(one.other)}</td>"
        f'<td class="n">{number(one.first_value)}</td><td class="n">{number(one.other_value)}</td>'
        f'<td class="n">{one.ratio:.2f}</td><td class="n">{one.least:.2f} to {one.most:.2f}</td>'
        f"<td>{verdict(one.ratio, one.least, one.most, MEASURES[one.measure].more_is_better)}</td></tr>"
        for one in report.comparisons
    ]
    heads = "".join(f"<th>{name}</th>" for name in names)
    return f"<table><tr>{heads}</tr>{''.join(rows)}</table>"


def _method(report: LoadReport) -> str:
    config = report.config
    lines = [
        f"{config.requests} requests at each concurrency (never fewer than clients), {config.warmup} before them "
        f"uncounted, {config.repeats} times over; each client sends its next request when its last is answered",
        *(f"{one.name}: model {one.model}, {one.protocol}, {json.dumps(dict(one.settings))}" for one in report.targets),
        *notes(report),
    ]
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"
