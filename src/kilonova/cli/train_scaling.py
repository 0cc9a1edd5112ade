"""`kilonova train scaling`: a ladder of runs and the law it follows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def scaling(
    study: Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped study such as scaling/micro.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Values that replace the study's own.")
    ] = None,
    picture: Annotated[Path | None, typer.Option(help="File for the plot (PNG).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """Train a ladder of sizes at several token counts, fit loss against both, and predict a run kept from the fit.

    Stopped, it goes on where it was. Example: kilonova train scaling scaling/micro --picture scaling.png
    """
    from kilonova.cli.extras import require_packages
    from kilonova.train.scaling.study import run_study

    if picture is not None:
        require_packages(["matplotlib"], "data")
    result = run_study(study, overrides or [])
    if picture is not None:
        from kilonova.core.files import write_atomic
        from kilonova.train.scaling.plot import draw_study

        write_atomic(picture, draw_study(result))
    if as_json:
        print(json.dumps(result.to_dict()))
        return

    from rich.console import Console
    from rich.table import Table

    law, held_out = result.law, result.held_out
    table = Table("run", "parameters", "tokens", "FLOPs", "loss", "by the law")
    for point in (*result.points, held_out):
        by_law = law.loss(point.parameters, point.tokens)
        table.add_row(
            point.name + (" (held out)" if point is held_out else ""),
            f"{point.parameters / 1e6:.2f} M",
            f"{point.tokens / 1e6:.1f} M",
            f"{point.flops:.2e}",
            f"{point.loss:.3f}",
            f"{by_law:.3f}",
        )
    console = Console()
    console.print(table)
    low, high = result.predicted_interval
    console.print(
        f"L(N, D) = {law.irreducible:.3f} + {law.parameter_scale:.4g} / N^{law.alpha:.3f} "
        f"+ {law.token_scale:.4g} / D^{law.beta:.3f}"
    )
    console.print(
        f"alpha {result.alpha_interval[0]:.2f} to {result.alpha_interval[1]:.2f}, "
        f"beta {result.beta_interval[0]:.2f} to {result.beta_interval[1]:.2f} (90 % bootstrap)"
    )
    console.print(f"held out: predicted {result.predicted:.3f} ({low:.3f} to {high:.3f}), measured {held_out.loss:.3f}")
