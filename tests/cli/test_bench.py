"""`kilonova bench`: measures a server that it starts; lists the scripts of the checkout and runs them."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kilonova.cli import bench_script
from kilonova.cli.bench import app
from kilonova.core.errors import ConfigError, KilonovaError


def test_starts_a_server_for_a_directory_and_stops_it(tiny_micro_directory: Path, tmp_path: Path) -> None:
    arguments = ["--concurrency", "2", "--requests", "3", "--input-tokens", "50", "--output-tokens", "5"]
    arguments += ["--price-per-hour", "2", "--output", str(tmp_path / "page")]

    result = CliRunner().invoke(
        app, ["serve", "--model", str(tiny_micro_directory), *arguments, "--json"], catch_exceptions=False
    )

    report = json.loads(result.stdout)
    (target,) = report["targets"]
    assert target["name"] == f"{tiny_micro_directory.name} at local"
    (level,) = target["levels"]
    assert level["requests"] == 3
    assert level["input_tokens"] == [50, 50]
    assert level["cost_per_million_output_tokens"] > level["cost_per_million_tokens"] > 0
    assert "<h1>50 tokens in, 5 out</h1>" in (tmp_path / "page" / "report.html").read_text()
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"{target['url']}/health", timeout=5)


def test_a_server_that_does_not_start_is_reported(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "none", "max_position_embeddings": 8}')
    result = CliRunner().invoke(app, ["serve", "--model", str(tmp_path)])
    assert isinstance(result.exception, KilonovaError)
    assert "did not start" in str(result.exception)
    assert "tokenizer.json" in str(result.exception)


def test_lists_what_each_script_measures() -> None:
    result = CliRunner().invoke(app, ["script"], env={"COLUMNS": "160"}, catch_exceptions=False)

    assert result.exit_code == 0
    scripts = list(bench_script.BENCHMARKS.glob("*.py"))
    assert scripts
    assert all(script.stem in result.stdout for script in scripts)


def test_runs_a_script_with_its_arguments_and_exit_code(tmp_path: Path) -> None:
    (tmp_path / "echo.py").write_text('"""Echo."""\nimport sys\nprint(sys.argv[1:])\nsys.exit(3)\n')
    code = (
        "import pathlib, sys; from kilonova.cli import bench, bench_script; "
        f"bench_script.BENCHMARKS = pathlib.Path({str(tmp_path)!r}); bench.app(sys.argv[1:])"
    )

    result = subprocess.run(
        [sys.executable, "-c", code, "script", "echo", "--json", "--rounds", "2"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert result.stdout.strip() == "['--json', '--rounds', '2']"
    assert result.returncode == 3


def test_unknown_benchmark_names_the_nearest() -> None:
    result = CliRunner().invoke(app, ["script", "strat"])

    assert isinstance(result.exception, ConfigError)
    assert "'start'" in str(result.exception)


def test_installed_package_without_scripts_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bench_script, "BENCHMARKS", tmp_path)

    result = CliRunner().invoke(app, ["script"])

    assert isinstance(result.exception, ConfigError)
    assert "checkout" in str(result.exception)
