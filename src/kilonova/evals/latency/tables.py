"""A load report as tables for the terminal."""

from __future__ import annotations

from rich.table import Table

from kilonova.evals.latency.report import MEASURES, Level, LoadReport, Percentiles, TargetReport

ROWS = {
    "first_token_ms": "time to first token, ms",
    "inter_token_ms": "inter-token latency, ms",
    "token_ms": "time per output token, ms",
    "total_ms": "total time, ms",
}


def tables(report: LoadReport) -> list[Table]:
    """A table for each target, and one of the ratios between them."""
    found = [_target_table(target) for target in report.targets]
    if report.comparisons:
        found.append(_comparison_table(report))
    return found


def notes(report: LoadReport) -> list[str]:
    """What a reader must know to read the figures rightly."""
    config, found = report.config, []
    for target in report.targets:
        who = (
            "its own usage" if target.counted_by == "usage" else "the tokenizer given here, without a chat's last turn"
        )
        found.append(f"{target.name}: tokens are counted by {who}")
        inputs = [bound for level in target.levels for bound in level.input_tokens]
        outputs = [bound for level in target.levels for bound in level.output_tokens]
        if {*inputs} != {config.input_tokens}:
            found.append(f"{target.name}: prompts had {_span(inputs)} tokens, not {config.input_tokens}")
        if {*outputs} != {config.output_tokens}:
            found.append(
                f"{target.name}: answers had {_span(outputs)} tokens, not {config.output_tokens}; total times are "
                "only comparable where they are equal"
            )
        found += [
            f"{target.name}: {level.refused} requests refused at {level.concurrency} at a time, "
            f"the last: {level.last_refusal}"
            for level in target.levels
            if level.refused
        ]
        most = max(level.tokens_per_event for level in target.levels)
        if most > 1.2:
            found.append(f"{target.name}: an event carries up to {most:.1f} tokens; read the time per output token")
    return found


def figures(level: Level) -> list[tuple[str, list[str]]]:
    """The rows of a level that have percentiles: their titles with mean, p50, p95 and p99."""
    rows = []
    for name, title in ROWS.items():
        percentiles: Percentiles | None = getattr(level, name)
        if percentiles is not None:
            rows.append((title, [number(value) for value in percentiles.values()]))
    return rows


def rates(level: Level) -> list[tuple[str, str]]:
    """The rows of a level that are one figure."""
    rows = [
        ("prefill, tokens/s", number(level.prefill_tokens_per_s)),
        ("output, tokens/s", number(level.output_tokens_per_s)),
        ("input and output, tokens/s", number(level.total_tokens_per_s)),
    ]
    if level.cost_per_million_output_tokens is not None and level.cost_per_million_tokens is not None:
        rows.append(("cost of a million output tokens", number(level.cost_per_million_output_tokens)))
        rows.append(("cost of a million tokens, input and output", number(level.cost_per_million_tokens)))
    return rows


def number(value: float) -> str:
    """With three digits, and no exponent."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if value >= 1 else f"{value:.3g}"


def _target_table(target: TargetReport) -> Table:
    table = Table("at a time", "measure", "mean", "p50", "p95", "p99", title=target.name)
    for column in table.columns[2:]:
        column.justify = "right"
    for level in target.levels:
        first = str(level.concurrency)
        for title, values in figures(level):
            table.add_row(first, title, *values)
            first = ""
        for title, value in rates(level):
            table.add_row("", title, value)
        table.add_section()
    return table


def _comparison_table(report: LoadReport) -> Table:
    first = report.targets[0].name
    table = Table("at a time", "measure", "first", "this", "ratio", "least", "most", "", title=f"against {first}")
    for one in report.comparisons:
        measure = MEASURES[one.measure]
        table.add_row(
            str(one.concurrency),
            measure.title,
            number(one.first_value),
            f"{number(one.other_value)} {one.other}" if len(report.targets) > 2 else number(one.other_value),
            *(f"{value:.2f}" for value in (one.ratio, one.least, one.most)),
            verdict(one.ratio, one.least, one.most, measure.more_is_better),
        )
    return table


def verdict(ratio: float, least: float, most: float, more_is_better: bool) -> str:
    """Whether the other is better than the first; nothing is said of a single repeat."""
    if least == most:
        return ""
    if least <= 1 <= most:
        return "even"
    return "better" if (ratio > 1) == more_is_better else "worse"


def _span(values: list[int]) -> str:
    return f"{min(values)}" if min(values) == max(values) else f"{min(values)} to {max(values)}"
