"""The report as tables, and as a folder with a page."""

from __future__ import annotations

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image
from rich.console import Console

from kilonova.evals.latency.endpoint import Reply
from kilonova.evals.latency.load import LoadConfig, Measured, Run, Target
from kilonova.evals.latency.page import write_report
from kilonova.evals.latency.prompts import PromptBuilder
from kilonova.evals.latency.report import LoadReport, summarise
from kilonova.evals.latency.tables import notes, tables

CONFIG = LoadConfig(concurrency=(1, 2), requests=2, input_tokens=100, output_tokens=3, repeats=2)


def measured(name: str, step: float) -> Measured:
    """Two requests a run whose tokens come at multiples of `step` seconds."""
    endpoint = SimpleNamespace(settings={"temperature": 0})
    target = Target(name, "openai", f"http://{name}", "model", endpoint, price_per_hour=1.8)  # type: ignore[arg-type]
    reply = Reply((4 * step, 5 * step, 7 * step), 8 * step, "a b c", 100, 3)
    runs = {number: [Run(number, (reply, reply), (), 16 * step / number) for _ in range(2)] for number in (1, 2)}
    return Measured(target, "usage", PromptBuilder(1, {"a": 1}), runs)


@pytest.fixture
def report() -> LoadReport:
    return summarise([measured("one", 0.1), measured("two <2>", 0.05)], CONFIG)


def test_figures_follow_from_the_replies(report: LoadReport) -> None:
    one, two = report.targets
    level = one.levels[0]
    assert level.first_token_ms["p50"] == pytest.approx(400)
    assert level.inter_token_ms is not None
    assert level.inter_token_ms["mean"] == pytest.approx(150)
    assert level.inter_token_ms["p99"] == pytest.approx(200)
    assert level.token_ms is not None
    assert level.token_ms["p95"] == pytest.approx(150)
    assert level.total_ms["mean"] == pytest.approx(800)
    assert level.prefill_tokens_per_s == pytest.approx(250)
    assert level.output_tokens_per_s == pytest.approx(6 / 1.6)
    assert level.total_tokens_per_s == pytest.approx(206 / 1.6)
    assert level.cost_per_million_output_tokens == pytest.approx(1.8 / 3600 * 1.6 / 6 * 1e6)
    assert two.levels[1].output_tokens_per_s == pytest.approx(4 * level.output_tokens_per_s)
    ratios = {(one.concurrency, one.measure): one.ratio for one in report.comparisons}
    assert ratios[1, "first_token_ms"] == ratios[2, "total_ms"] == pytest.approx(0.5)
    assert ratios[1, "output_tokens_per_s"] == ratios[2, "prefill_tokens_per_s"] == pytest.approx(2)


def test_tables_show_every_level_and_ratio(report: LoadReport) -> None:
    console = Console(width=160, record=True, file=io.StringIO())
    for table in tables(report):
        console.print(table)
    text = console.export_text()
    assert "two <2>" in text
    assert "against one" in text
    assert "0.50" in text
    assert "2.00" in text
    assert len(re.findall(r"inter-token latency, ms", text)) == 2 * 2 + 2
    assert not [note for note in notes(report) if "tokens, not" in note]


def test_the_page_needs_no_other_file(report: LoadReport, tmp_path: Path) -> None:
    write_report(tmp_path / "new" / "folder", report)

    files = {path.name: path for path in (tmp_path / "new" / "folder").iterdir()}
    assert set(files) == {"report.html", "report.json", "throughput.png", "latency.png"}
    page = files["report.html"].read_text()
    parser = HTMLParser(convert_charrefs=True)
    parser.feed(page)
    parser.close()
    assert "two &lt;2&gt;" in page
    assert "two <2>" not in page
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    embedded = [base64.b64decode(data) for data in re.findall(r"data:image/png;base64,([^\"]+)", page)]
    assert embedded == [files["throughput.png"].read_bytes(), files["latency.png"].read_bytes()]
    for picture in embedded:
        image = Image.open(io.BytesIO(picture))
        image.load()
        assert image.width > 800
        # Something is drawn in the first target's colour.
        assert (0x2F, 0x6D, 0xB3) in {pixel for _, pixel in image.convert("RGB").getcolors(2**20)}
    tree = json.loads(files["report.json"].read_text())
    assert tree["targets"][0]["levels"][0]["total_ms"]["p50"] == pytest.approx(800)
    assert tree["config"]["input_tokens"] == 100
