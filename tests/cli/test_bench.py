"""`kilonova bench`: lists the scripts of the checkout and runs them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kilonova.cli import bench
from kilonova.core.errors import ConfigError


def test_lists_what_each_script_measures() -> None:
    result = CliRunner().invoke(bench.app, [], env={"COLUMNS": "160"}, catch_exceptions=False)

    assert result.exit_code == 0
    scripts = list(bench.BENCHMARKS.glob("*.py"))
    assert scripts
    assert all(script.stem in result.stdout for script in scripts)


def test_runs_a_script_with_its_arguments_and_exit_code(tmp_path: Path) -> None:
    (tmp_path / "echo.py").write_text('"""Echo."""\nimport sys\nprint(sys.argv[1:])\nsys.exit(3)\n')
    code = (
        "import pathlib, sys; from kilonova.cli import bench; "
        f"bench.BENCHMARKS = pathlib.Path({str(tmp_path)!r}); bench.app(sys.argv[1:])"
    )

    result = subprocess.run(
        [sys.executable, "-c", code, "echo", "--json", "--rounds", "2"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert result.stdout.strip() == "['--json', '--rounds', '2']"
    assert result.returncode == 3


def test_unknown_benchmark_names_the_nearest() -> None:
    result = CliRunner().invoke(bench.app, ["strat"])

    assert isinstance(result.exception, ConfigError)
    assert "'start'" in str(result.exception)


def test_installed_package_without_scripts_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bench, "BENCHMARKS", tmp_path)

    result = CliRunner().invoke(bench.app, [])

    assert isinstance(result.exception, ConfigError)
    assert "checkout" in str(result.exception)
