"""The look of reports that are one HTML file."""

from __future__ import annotations

from collections.abc import Iterable

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1d2327; background: #fff; max-width: 1000px; margin: 32px auto;
  padding: 0 24px; }
h1 { font-size: 22px; } h2 { font-size: 17px; margin-top: 36px; }
.figures { display: flex; flex-wrap: wrap; gap: 12px; }
.figures div { min-width: 150px; border: 1px solid #dde1e4; border-radius: 6px; padding: 8px 12px; }
.figures b { display: block; font-size: 20px; } .figures span { color: #5b666e; font-size: 13px; }
table { border-collapse: collapse; } td, th { text-align: left; padding: 3px 16px 3px 0; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
"""


def html_page(title: str, sections: Iterable[str], style: str = "") -> str:
    """A page that needs nothing else: `title` and `sections` are HTML, `style` is CSS beside the common one.

    The common classes are `figures` for a row of tiles (`<div><b>value</b><span>name</span></div>`) and `n` for cells
    that hold numbers.
    """
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{_STYLE}{style}</style>'
        f"<h1>{title}</h1>{''.join(sections)}</html>\n"
    )
