import io
import math
import sys

import pytest
from rich.console import Console

from kilonova.train.run_view import RunView, sparkline


def test_a_sparkline_spans_the_values_and_leaves_gaps() -> None:
    assert sparkline([0.0, 3.5, 7.0]) == "▁▅█"
    assert sparkline([1.0, math.nan, 1.0]) == "▁ ▁"
    assert sparkline([math.inf]) == ""


def test_a_terminal_shows_one_panel_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=80, legacy_windows=False)
    record = {"tokens_per_second": 1234.5, "mfu": 0.31, "lr": 3e-4, "grad_norm": 0.5}
    with RunView("pretrain runs/mine", 100_000, 0, console=console) as view:
        for step in range(1, 80):
            view.update(record | {"step": step, "loss": 9.0 / step}, 0.97, 3600.0)
            view.validation({"books": 4.2})
    text = screen.getvalue()
    for part in ("pretrain runs/mine", "79/100000", "1,234 tokens/s", "goodput 97.0%", "1:00:00 left", "on books", "█"):
        assert part in text
    assert "\x1b[1A" in text  # drawn over itself


def test_elsewhere_it_is_lines(capsys: pytest.CaptureFixture[str]) -> None:
    record = {"tokens_per_second": 1234.5, "mfu": 0.31, "lr": 3e-4, "grad_norm": 0.5, "step": 10, "loss": 2.0}
    with RunView("pretrain runs/mine", 10, 0) as view:
        view.update(record, 0.97, 0.0)
    assert (
        capsys.readouterr().err
        == "pretrain runs/mine 10/10 loss 2.000  1234 tokens/s  MFU 31%  goodput 97%  0:00:00 left\n"
    )
