"""A goodput report in the terminal."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from kilonova.train.goodput.report import CLASSES, GoodputReport


def headline(report: GoodputReport) -> dict[str, str]:
    """The figures that sum a run up, by name."""
    figures = {
        "goodput": f"{report.goodput:.2%}",
        "wall clock": duration(report.wall),
        "steps": f"{report.steps:,}",
        "median step": duration(report.median_step),
        "MFU of the steps": "-" if report.mfu is None else f"{report.mfu:.1%}",
        "faults": str(report.faults),
        "mean time to repair": duration(report.mttr),
        "of it, restart": duration(report.restart),
        "mean time between faults": duration(report.mtbf),
    }
    saves = report.checkpoints
    if saves["saves"]:
        figures["checkpoints"] = f"{saves['saves']:.0f}, {saves['failed']:.0f} failed"
        figures["stall a checkpoint"] = duration(saves["stall_per_save"])
        figures["steps beside one"] = f"{saves['slowdown_of_steps_beside']:+.1%} longer"
    if report.skipped_steps:
        figures["skipped steps"] = str(report.skipped_steps)
    return figures


def report_tables(run: Path, report: GoodputReport) -> list[Table]:
    """The headline, the classes, and the ranks where there are several."""
    summary = Table(title=str(run), show_header=False)
    for name, value in headline(report).items():
        summary.add_row(name, value)
    classes = Table("class", "time", "share", "what it is")
    for name, seconds in report.seconds.items():
        if seconds:
            classes.add_row(name, duration(seconds), f"{seconds / report.wall:.2%}", CLASSES[name])
    tables = [summary, classes]
    if len(report.ranks) > 1:
        ranks = Table("rank", "median step", "95th percentile", "waiting for others")
        for rank, times in report.ranks.items():
            if times:
                ranks.add_row(str(rank), duration(times["median"]), duration(times["p95"]), f"{times['waiting']:.1%}")
        tables.append(ranks)
    return tables


def duration(seconds: float | None) -> str:
    """A length of time as people say it; `-` for none."""
    if seconds is None:
        return "-"
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 120:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
