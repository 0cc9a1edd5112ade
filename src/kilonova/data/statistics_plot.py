"""Pictures of what is in a set of sources."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kilonova.data.statistics import DataStatistics, SourceStatistics

_BLUE, _ORANGE, _GREY, _GREEN = "#2f6db3", "#e08b2c", "#b5b9bf", "#3f9c6b"
_LANGUAGES = 10
_TICKS = 9


def draw_statistics(statistics: DataStatistics, title: str) -> bytes:
    """One picture (PNG): shares, lengths, languages, duplicates, and with a tokenizer its rate and the packing."""
    sources = statistics.sources
    tokens = statistics.unit == "tokens"
    rows = 3 if tokens else 2
    height = max(3.2, 0.34 * len(sources) + 1.4)
    figure = Figure(figsize=(14, height * rows), layout="constrained", dpi=110)
    figure.suptitle(title, fontsize=15, fontweight="bold")
    axes = figure.subplots(rows, 2)
    _shares(axes[0, 0], sources, statistics.unit)
    _lengths(axes[0, 1], statistics)
    _languages(axes[1, 0], sources)
    _duplicates(axes[1, 1], sources)
    if tokens:
        _rates(axes[2, 0], sources)
        _packing(axes[2, 1], statistics)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
        axis.title.set_fontweight("bold")
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()


def _shares(axis: Axes, sources: Sequence[SourceStatistics], unit: str) -> None:
    total = sum(source.size for source in sources)
    places = np.arange(len(sources))
    files = [100 * source.size / total for source in sources]
    seen = [100 * source.share for source in sources]
    axis.barh(places - 0.2, files, 0.38, color=_GREY, label="of the files")
    bars = axis.barh(places + 0.2, seen, 0.38, color=_BLUE, label="of training, after weights and temperature")
    axis.bar_label(bars, fmt="%.1f %%", padding=3, fontsize=8)
    _name_rows(axis, sources)
    axis.set(title="Where the training comes from", xlabel=f"share of {unit} (%)", xlim=(0, 1.15 * max(files + seen)))
    _legend_below(axis, len(sources))


def _lengths(axis: Axes, statistics: DataStatistics) -> None:
    lengths = np.concatenate([source.lengths for source in statistics.sources])
    lengths = lengths[lengths > 0]
    highest = int(np.ceil(np.log2(lengths.max() + 1)))
    edges = 2.0 ** np.arange(0, highest + 1)
    documents = 100 * np.histogram(lengths, edges)[0] / len(lengths)
    sizes = 100 * np.histogram(lengths, edges, weights=lengths)[0] / lengths.sum()
    axis.stairs(documents, edges, fill=True, color=_GREY, label="of documents")
    axis.stairs(sizes, edges, color=_BLUE, linewidth=2, label=f"of {statistics.unit}")
    if statistics.sequence_length is not None:
        axis.axvline(statistics.sequence_length, color=_ORANGE, linestyle="--", linewidth=1.5, label="length of a row")
    axis.set_xscale("log", base=2)
    ticks = edges[:: int(np.ceil(len(edges) / _TICKS))]
    axis.set_xticks(ticks, [_short(tick) for tick in ticks])
    axis.set(
        title=f"Length of documents (median {int(np.median(lengths)):,} {statistics.unit})",
        xlabel=f"{statistics.unit} in a document (each bar is twice as wide as the last)",
        ylabel="share (%)",
    )
    axis.legend(frameon=False)


def _languages(axis: Axes, sources: Sequence[SourceStatistics]) -> None:
    total: Counter[str] = Counter()
    for source in sources:
        total.update(source.languages)
    size = max(1, total.total())
    common = total.most_common(_LANGUAGES)
    rest = size - sum(count for _, count in common)
    names = [code for code, _ in common]
    shares = [100 * count / size for _, count in common]
    if rest > 0:
        names.append(f"{len(total) - len(common)} others")
        shares.append(100 * rest / size)
    bars = axis.barh(names, shares, 0.7, color=_GREEN)
    axis.bar_label(bars, fmt="%.1f %%", padding=3, fontsize=8)
    axis.invert_yaxis()
    axis.set(title="Languages, as identified (ISO 639)", xlabel="share of bytes (%)", xlim=(0, 1.15 * max(shares)))


def _duplicates(axis: Axes, sources: Sequence[SourceStatistics]) -> None:
    exact = np.array([100 * source.exact_duplicates / source.documents for source in sources])
    near = np.array([100 * source.near_duplicates / source.documents for source in sources])
    places = np.arange(len(sources))
    axis.barh(places, exact, 0.6, color=_ORANGE, label="exact")
    bars = axis.barh(places, near, 0.6, left=exact, color="#f2c894", label="near (Jaccard similarity from 0.8)")
    axis.bar_label(bars, [f"{share:.1f} %" for share in exact + near], padding=3, fontsize=8)
    _name_rows(axis, sources)
    highest = max(1.0, float((exact + near).max()))
    axis.set(title="Duplicates of an earlier document", xlabel="share of documents (%)", xlim=(0, 1.2 * highest))
    _legend_below(axis, len(sources))


def _rates(axis: Axes, sources: Sequence[SourceStatistics]) -> None:
    rates = [source.bytes_per_token or 0.0 for source in sources]
    bars = axis.barh(np.arange(len(sources)), rates, 0.6, color=_BLUE)
    axis.bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
    _name_rows(axis, sources)
    axis.set(title="How much text a token holds", xlabel="bytes a token", xlim=(0, 1.15 * max(rates)))


def _packing(axis: Axes, statistics: DataStatistics) -> None:
    waste = statistics.packing
    if waste is None:
        axis.set_axis_off()
        return
    empty = 100 * waste.empty_share
    long, cut = (100 * count / waste.documents for count in (waste.too_long, waste.cut))
    parts = [
        ("positions", [(100 - empty, _BLUE, "with a token"), (empty, _ORANGE, "empty")]),
        ("documents", [(100 - long - cut, _GREEN, "whole"), (cut, "#f2c894", "cut"), (long, _ORANGE, "too long")]),
    ]
    for name, pieces in parts:
        left = 0.0
        for share, colour, label in pieces:
            axis.barh(name, share, 0.4, left=left, color=colour, label=f"{name} {label}: {share:.2f} %")
            left += share
    # Room for the legend below the bars, where the first bar is on top.
    axis.set(
        title=f"Packing into rows of {statistics.sequence_length:,} tokens",
        xlabel="share (%)",
        xlim=(0, 100),
        ylim=(2.4, -0.5),
    )
    axis.legend(loc="lower left", ncols=2, frameon=False)


def _name_rows(axis: Axes, sources: Sequence[SourceStatistics]) -> None:
    axis.set_yticks(np.arange(len(sources)), [source.name for source in sources])
    axis.invert_yaxis()


def _legend_below(axis: Axes, rows: int) -> None:
    """A legend under the last bar, in room made for it."""
    axis.set_ylim(rows - 0.5 + max(0.8, 0.2 * rows), -0.6)
    axis.legend(loc="lower right", ncols=2, frameon=False)


def _short(value: float) -> str:
    for size, letter in ((2**30, "Gi"), (2**20, "Mi"), (2**10, "Ki")):
        if value >= size:
            return f"{value / size:g} {letter}"
    return f"{value:g}"
