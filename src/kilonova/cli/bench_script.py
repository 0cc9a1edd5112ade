"""`kilonova bench script`: run the benchmark scripts of a checkout."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from kilonova.core.errors import ConfigError, nearest

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


def script(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="The benchmark to run; leave it out to list them.")] = None,
) -> None:
    """Run one of the scripts behind the numbers in the documentation, or list them.

    What follows the name goes to the script. They live in a checkout's benchmarks folder, not in an installed package.

    Example: kilonova bench script decode --model 0.6b --json
    """
    scripts = {path.stem: path for path in sorted(BENCHMARKS.glob("*.py"))}
    if not scripts:
        raise ConfigError("there are no benchmarks here: run this from an editable install of a checkout")
    if name is None:
        from rich.console import Console
        from rich.table import Table

        table = Table("benchmark", "measures")
        for stem, path in scripts.items():
            description = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            table.add_row(stem, description.partition("\n")[0])
        Console().print(table)
        return
    if name not in scripts:
        raise ConfigError(f"no benchmark {name!r}: {nearest(name, scripts)}")
    raise typer.Exit(subprocess.run([sys.executable, str(scripts[name]), *context.args], check=False).returncode)
