"""The command itself: what it imports, how fast it helps, and what its errors look like."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kilonova.cli.main import VERBS

KILONOVA = str(Path(sys.executable).with_name("kilonova"))
HEAVY = ("torch", "transformers", "botocore", "numpy", "tokenizers", "starlette", "uvicorn")


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [KILONOVA, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "COLUMNS": "160", **environment},
    )


def imported_modules(*arguments: str) -> set[str]:
    """Names of the modules that were loaded when `kilonova ARGUMENTS` ended."""
    code = (
        "import atexit, sys\n"
        "atexit.register(lambda: print(sorted(sys.modules), file=sys.stderr))\n"
        f"sys.argv = {['kilonova', *arguments]!r}\n"
        "from kilonova.cli.main import main\nmain()"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    return set(ast.literal_eval(result.stderr))


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], *[[verb, "--help"] for verb in VERBS]])
def test_help_and_version_import_nothing_heavy(arguments: list[str]) -> None:
    assert not imported_modules(*arguments) & set(HEAVY)


def test_one_verb_does_not_import_another() -> None:
    loaded = {name for name in imported_modules("chat", "--help") if name.startswith("kilonova.cli.")}

    assert loaded == {"kilonova.cli.main", "kilonova.cli.chat"}


def test_help_lists_every_verb() -> None:
    result = run("--help")

    assert result.returncode == 0
    assert all(verb in result.stdout for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_an_example(verb: str) -> None:
    result = run(verb, "--help")

    assert result.returncode == 0
    assert f"Example: kilonova {verb}" in result.stdout


def test_module_runs_as_the_command() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "kilonova", "--version"], capture_output=True, text=True, timeout=60, check=True
    )

    assert result.stdout == run("--version").stdout
    assert result.stdout.startswith("kilonova 0.")


def test_mistyped_verb_is_a_usage_error_that_names_the_right_one() -> None:
    result = run("serv")

    assert result.returncode == 2
    assert "'serve'" in result.stderr


def test_error_is_one_line_without_traceback() -> None:
    result = run("train", "micro/pretrian")

    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: no recipe 'micro/pretrian'")
    assert result.stderr.count("\n") == 1


def test_debug_shows_the_traceback() -> None:
    result = run("train", "micro/pretrian", KILONOVA_DEBUG="1")

    assert result.returncode != 0
    assert "Traceback" in result.stderr
